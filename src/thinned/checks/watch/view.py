"""A watched run in the terminal: a live table, or lines of text where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .report import log_line, summary, table_rows

EVERY = 5.0  # seconds between lines where there is no terminal
HEIGHT = 12  # sites in the live table


class View:
    """What :func:`thinned.watch` shows with ``show=True``."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live: Live | None = None
        self.last_line = 0.0  # when the last line was printed

    def show(self, watch: Any) -> None:
        if not self.console.is_terminal:
            if time.monotonic() - self.last_line >= EVERY:
                self.last_line = time.monotonic()
                self.console.print(Text(log_line(watch)))
            return
        if self.live is None:
            self.live = Live(console=self.console, auto_refresh=False)
            self.live.start()
        self.live.update(table(watch), refresh=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


def table(watch: Any) -> Group:
    """Losses, rates, verdicts and findings."""
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    header, *body = table_rows(watch)
    for number, column in enumerate(header):
        grid.add_column(
            column, justify="right" if number else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in body[:HEIGHT]:
        grid.add_row(*(Text(cell) for cell in row))
    rest = [Text(f"and {len(body) - HEIGHT} more", style="dim")] if len(body) > HEIGHT else []
    verdicts = [
        Text.assemble(("● ", "green" if v.name == "fine" else "yellow"), v.text)
        for v in watch.verdicts
    ]
    findings = [
        Text.assemble((f"{f.code} ", "red"), f"{f.site or 'the model'}: {f.message}")
        for f in watch.findings
    ]
    return Group(Text(summary(watch), style="bold"), grid, *rest, *verdicts, *findings)
