"""The command ``thinned methods``: the table of all methods, or the page of one."""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ..presets import Advice, Preset


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="The method to describe. Without it: the table of all methods."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown.")
    ] = False,
) -> None:
    """List all dropout methods, or describe one: paper, usage, reference and advice."""
    from rich.console import Console

    from .. import presets
    from .._errors import unknown

    console = Console()
    if name is None and markdown:
        typer.echo(_markdown(presets.CATALOG))
        return
    if name is None:
        _table(console, presets.CATALOG)
        return
    if name not in presets.CATALOG:
        typer.echo(unknown("dropout method", name, presets.CATALOG), err=True)
        raise typer.Exit(2)
    _page(console, presets.CATALOG[name], presets.ADVICE[name])


def _table(console: Console, catalog: Mapping[str, Preset]) -> None:
    """Print all methods, grouped by what they act on."""
    from rich.markup import escape
    from rich.table import Table

    wide = console.width >= 110
    table = Table(
        title=f"{len(catalog)} methods",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    table.add_column("name", no_wrap=True)
    for column in ["method", "paper", "runs as"] if wide else ["paper"]:
        table.add_column(column, no_wrap=True)
    table.add_column("in one line", overflow="fold")
    for place in dict.fromkeys(row.place for row in catalog.values()):
        table.add_row()
        table.add_row(f"[bold]{place}[/bold]")
        for key, row in catalog.items():
            if row.place == place:
                paper = f"[link={row.url}]{row.paper} {row.year}[/link]"
                middle = [row.title, paper, row.status] if wide else [paper]
                table.add_row(key, *middle, escape(row.example))
    console.print(table, highlight=False)
    console.print("\nthinned methods NAME prints a method's page.", highlight=False)


def _markdown(catalog: Mapping[str, Preset]) -> str:
    """The table of all methods as Markdown."""
    lines = [
        f"# {len(catalog)} methods",
        "",
        "`thinned methods NAME` prints a method's page. Written by `thinned methods --markdown`.",
    ]
    for place in dict.fromkeys(row.place for row in catalog.values()):
        lines += [
            "",
            f"## {place}",
            "",
            "| name | method | paper | runs as | in one line |",
            "|---|---|---|---|---|",
        ]
        for key, row in catalog.items():
            if row.place == place:
                paper = f"[{row.paper} {row.year}]({row.url})"
                lines.append(f"| {key} | {row.title} | {paper} | {row.status} | `{row.example}` |")
    return "\n".join(lines)


def _page(console: Console, row: Preset, advice: Advice) -> None:
    """Print one method: its paper, usage, docstring and advice."""
    from rich.markup import escape

    function = row.make or _public(row.constructor)
    public_name = f"presets.{row.make.__name__}" if row.make else row.constructor
    signature = (
        str(inspect.signature(function)).split(" ->")[0].replace("'", "").replace("thinned.", "")
    )
    console.print(
        f"[bold]{row.title}[/bold]  {row.paper} {row.year}, {row.url}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{row.place}; {_STATUS[row.status]}\n", highlight=False)
    console.print(f"    {row.example}", highlight=False, markup=False)
    console.print(f"    {public_name}{signature}\n", highlight=False, markup=False)
    described = (
        re.search(r":func:`thinned\.(functional\.\w+)`", function.__doc__ or "")
        if row.make is None
        else None
    )
    _text(console, inspect.getdoc(function) or "")
    if described:
        _text(console, inspect.getdoc(_public(described.group(1))) or "")
    for label, text in (
        ("Use it for", advice.use),
        ("It costs", advice.cost),
        ("Avoid", advice.avoid),
    ):
        console.print(f"[bold]{label}:[/bold] {escape(text)}", highlight=False)


def _text(console: Console, doc: str) -> None:
    """Print a docstring without its markup; paragraphs are wrapped to the width of the terminal."""
    for part in doc.split("\n\n"):
        indented = re.search(r"^ ", part, re.M)  # a section, a list or code
        lines = part if indented or part.startswith(">>>") else part.replace("\n", " ")
        text = re.sub(r":\w+:`~?([^`]+)`", r"\1", lines).replace("``", "")
        console.print(text, highlight=False, markup=False, end="\n\n")


_STATUS = {
    "kernel": "runs in the fused kernels",
    "torch": "runs in PyTorch operations, with masks of the same contract",
}


def _public(name: str) -> Callable[..., Any]:
    """The public object ``thinned.<name>``."""
    import thinned

    return operator.attrgetter(name)(thinned)  # type: ignore[no-any-return]
