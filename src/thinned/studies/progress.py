"""The progress and the results of a study in the terminal."""

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
from .verdict import MetricFormatter, loss_text

STYLES = {
    "none": "dim",
    "constant": "dim",
    "dropout": "blue",
    "other": "yellow",
    "combination": "green",
}
LINE_INTERVAL = 20.0  # seconds between lines where the output is not a terminal


class TerminalProgress:
    """A progress bar with the current part, the time left and the best candidate so far.

    Where the output is not a terminal, it prints a line from time to time.
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
        self.last_line = self.began = time.monotonic()

    def __enter__(self) -> TerminalProgress:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def describe(self, data: Record) -> None:
        for line in describe(data):
            self.console.print(line, soft_wrap=True)

    def start(self, total: float, done: float, networks: int) -> None:
        self.total, self.cost, self.done = networks, total, done
        self.progress.reset(
            self.bar, total=total, completed=int(done), networks=f"0 of {networks:,}"
        )
        if not self.console.is_terminal:
            self.console.print(
                f"{networks:,} networks to train"
                + (f", {done / total:.0%} already done" if done else "")
            )

    def begin(self, what: str) -> None:
        self.progress.update(self.bar, description=what)

    def advance(self, cost: float) -> None:
        self.done += cost
        self.progress.update(self.bar, advance=cost)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line > LINE_INTERVAL:
            self.last_line = now
            share = self.done / self.cost
            left = (now - self.began) * (1 - share) / share
            self.console.print(
                f"{share:4.0%}, {self.networks:,} of {self.total:,} networks, "
                f"about {left:.0f} s left{self._lowest()}"
            )

    def result(self, records: Sequence[Record]) -> None:
        self.networks += len({str(r["recipe"]) for r in records})
        for r in records:
            loss, _ = r["scores"]["val"]
            if r["experiment"] == "methods" and loss < self.lowest[0]:
                self.lowest = (
                    loss,
                    f"{r['method']}, {r['label']}: validation loss {loss_text(loss)}",
                )
        self.progress.update(self.bar, networks=f"{self.networks:,} of {self.total:,}")
        if self.lowest[1]:
            self.progress.update(
                self.best, description=f"[dim]best so far[/dim] {self.lowest[1]}", visible=True
            )

    def _lowest(self) -> str:
        return f"; best so far {self.lowest[1]}" if self.lowest[1] else ""


def describe(data: Record) -> list[Text]:
    """What is reported about the data before training: size, task, decisions and warnings."""
    size = f"{data['name']}: {data['rows']:,} rows, {data['inputs']:,} features after encoding"
    task = f"{data['kind']} of {data['target']}"
    lines = [Text(f"{size}; {task}.", style="bold")]
    lines += [Text.assemble((f"{n}", "dim")) for n in data["notes"]]
    return lines + [Text.assemble(("warning: ", "yellow"), w) for w in data.get("warnings", ())]


def summary(result: Result, console: Console) -> None:
    """Print the final table, the verdict and the paths of the files."""
    a = result.analysis
    formatter = MetricFormatter.of(a)
    wide = console.width >= 110
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", overflow="fold", max_width=34)
    if wide:
        table.add_column("strength, by validation", no_wrap=True, overflow="ellipsis")
    first, second = a.primary, 1 - a.primary
    for column in (
        f"test {formatter.name(first)}",
        "difference (95 %)",
        formatter.name(second),
    ):
        table.add_column(column, justify="right", no_wrap=True, min_width=8)
    constant = [] if a.constant is None else [a.constant]
    for method in sorted([*a.methods, *constant], key=lambda x: x.rank):
        change = ""
        if method.name != "none":
            difference = method.change
            mean = formatter.change(difference.mean, first)
            change = f"{mean} ({formatter.range(difference, first)})"
        style = STYLES[method.family] + (" bold" if method.p < 0.05 else "")
        cells = [Text(method.title, style=style)]
        cells += [Text(method.label)] if wide else []
        values = (method.loss.mean, method.metric.mean)
        numbers = (
            formatter.value(values[first], first),
            change.replace(formatter.unit, "") if formatter.unit else change,
            formatter.value(values[second], second),
        )
        table.add_row(*cells, *numbers)
    console.print()
    console.print(table)
    console.print()
    console.print(Text(result.verdict.headline, style="bold"))
    for subject, text in result.verdict.sentences:
        console.print(Text.assemble((f"{subject}. ", "dim"), text))
    if a.parts_left:
        console.print(
            Text(
                f"Not finished: {a.parts_left} of {a.header['planned']} parts have not run; the "
                "same command with --resume continues."
            )
        )
    console.print()
    for path in result.files:
        console.print(Text(str(path)))
