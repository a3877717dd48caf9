"""What a study says in the terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .outputs import Result
from .records import Record
from .verdict import Words, loss_text

STYLES = {"none": "dim", "dropout": "blue", "rival": "yellow", "pair": "green"}
EVERY = 20.0  # seconds between lines where there is no terminal


class Terminal:
    """A progress bar with what runs, the time left, and the best so far; plain lines where output
    is not a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[networks]} networks[/dim]"),
            TimeElapsedColumn(),
            TextColumn("[dim]left[/dim]"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.best = self.progress.add_task("", total=None, networks="", visible=False)
        self.bar = self.progress.add_task("preparing", total=1, networks="0")
        self.networks = self.total = 0
        self.done = self.cost = 0.0
        self.lowest: tuple[float, str] = (math.inf, "")
        self.said = self.began = time.monotonic()

    def __enter__(self) -> Terminal:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def start(self, total: float, done: float, networks: int) -> None:
        self.total, self.cost, self.done = networks, total, done
        self.progress.reset(
            self.bar, total=total, completed=int(done), networks=f"0 of {networks:,}"
        )
        if not self.console.is_terminal:
            self.console.print(
                f"{networks:,} networks to train"
                + (f", {done / total:.0%} done before" if done else "")
            )

    def begin(self, what: str) -> None:
        self.progress.update(self.bar, description=what)

    def advance(self, cost: float) -> None:
        self.done += cost
        self.progress.update(self.bar, advance=cost)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.said > EVERY:
            self.said = now
            share = self.done / self.cost
            left = (now - self.began) * (1 - share) / share
            self.console.print(
                f"{share:4.0%}, {self.networks:,} of {self.total:,} networks, about {left:.0f} s left{self._lowest()}"
            )

    def result(self, records: Sequence[Record]) -> None:
        self.networks += len({str(r["recipe"]) for r in records})
        for r in records:
            loss, _ = r["scores"]["val"]
            if r["experiment"] == "arms" and loss < self.lowest[0]:
                self.lowest = (loss, f"{r['arm']}, {r['label']}: validation loss {loss:.3f}")
        self.progress.update(self.bar, networks=f"{self.networks:,} of {self.total:,}")
        if self.lowest[1]:
            self.progress.update(
                self.best, description=f"[dim]best so far[/dim] {self.lowest[1]}", visible=True
            )

    def _lowest(self) -> str:
        return f"; best so far {self.lowest[1]}" if self.lowest[1] else ""


def summary(result: Result, console: Console) -> None:
    """The final table, the verdict, and where everything lies."""
    a = result.analysis
    words = Words(a.data["kind"], a.none.metric.mean)
    wide = console.width >= 110
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("arm", overflow="fold", max_width=34)
    if wide:
        table.add_column("strength, by validation", no_wrap=True, overflow="ellipsis")
    for column in (
        f"test {words.metric}",
        "difference (95 %)",
        words.loss if words.percent else "loss",
    ):
        table.add_column(column, justify="right", no_wrap=True, min_width=8)
    for arm in sorted(a.arms, key=lambda x: x.rank):
        change = (
            ""
            if arm.name == "none"
            else f"{words.change(arm.metric_change.mean)} ({words.range(arm.metric_change)})"
        )
        shown = arm.metric_p < 0.05 or arm.loss_p < 0.05
        cells = [Text(arm.title, style=STYLES[arm.family] + (" bold" if shown else ""))]
        cells += [Text(arm.label)] if wide else []
        numbers = (
            words.value(arm.metric.mean),
            change.replace(" points", ""),
            loss_text(arm.loss.mean),
        )
        table.add_row(*cells, *numbers)
    console.print()
    console.print(table)
    console.print()
    console.print(Text(result.verdict.headline, style="bold"))
    for subject, text in result.verdict.sentences:
        console.print(Text.assemble((f"{subject}. ", "dim"), text))
    if a.left:
        console.print(
            Text(
                f"Not finished. {a.left} of {a.header['planned']} parts have not run; the same command with --resume goes on."
            )
        )
    console.print()
    for path in result.files:
        console.print(Text(str(path)))
