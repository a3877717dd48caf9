"""``thinned methods``: the catalogue, and one method's page."""

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
        str | None, typer.Argument(help="One method's page; without it, the table of all.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table as Markdown, for a document.")
    ] = False,
) -> None:
    """Every dropout that is here: name, paper, where it acts; or one method's page."""
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
    """All methods, place by place."""
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
    for place in dict.fromkeys(row.host for row in catalog.values()):
        table.add_row()
        table.add_row(f"[bold]{place}[/bold]")
        for key, row in catalog.items():
            if row.host == place:
                paper = f"[link={row.url}]{row.paper} {row.year}[/link]"
                middle = [row.title, paper, row.status] if wide else [paper]
                table.add_row(key, *middle, escape(row.example))
    console.print(table, highlight=False)
    console.print("\nthinned methods NAME prints a method's page.", highlight=False)


def _markdown(catalog: Mapping[str, Preset]) -> str:
    """All methods as Markdown."""
    lines = [
        f"# {len(catalog)} methods",
        "",
        "`thinned methods NAME` prints a method's page. Written by `thinned methods --markdown`.",
    ]
    for place in dict.fromkeys(row.host for row in catalog.values()):
        lines += [
            "",
            f"## {place}",
            "",
            "| name | method | paper | runs as | in one line |",
            "|---|---|---|---|---|",
        ]
        for key, row in catalog.items():
            if row.host == place:
                paper = f"[{row.paper} {row.year}]({row.url})"
                lines.append(f"| {key} | {row.title} | {paper} | {row.status} | `{row.example}` |")
    return "\n".join(lines)


def _page(console: Console, row: Preset, advice: Advice) -> None:
    """One method: paper, place, how to write it, all that its docstring says, and advice."""
    from rich.markup import escape

    what = _public(row.fn) if isinstance(row.fn, str) else row.fn
    where = row.fn if isinstance(row.fn, str) else f"presets.{row.fn.__name__}"
    signature = (
        str(inspect.signature(what)).split(" ->")[0].replace("'", "").replace("thinned.", "")
    )
    console.print(
        f"[bold]{row.title}[/bold]  {row.paper} {row.year}, {row.url}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{row.host}; {_STATUS[row.status]}\n", highlight=False)
    console.print(f"    {row.example}", highlight=False, markup=False)
    console.print(f"    {where}{signature}\n", highlight=False, markup=False)
    described = (
        re.search(r":func:`thinned\.(functional\.\w+)`", what.__doc__ or "")
        if isinstance(row.fn, str)
        else None
    )
    _text(console, inspect.getdoc(what) or "")
    if described:
        _text(console, inspect.getdoc(_public(described.group(1))) or "")
    for label, said in (
        ("Use it for", advice.use),
        ("It costs", advice.cost),
        ("Avoid", advice.avoid),
    ):
        console.print(f"[bold]{label}:[/bold] {escape(said)}", highlight=False)


def _text(console: Console, doc: str) -> None:
    """A docstring, its paragraphs as wide as the terminal and its markup left out."""
    for part in doc.split("\n\n"):
        lines = part if part.startswith(">>>") else part.replace("\n", " ")
        text = re.sub(r":\w+:`~?([^`]+)`", r"\1", lines).replace("``", "")
        console.print(text, highlight=False, markup=False, end="\n\n")


_STATUS = {
    "kernel": "runs in the fused kernels",
    "torch": "runs in torch's operations, on masks of the same contract",
}


def _public(name: str) -> Callable[..., Any]:
    """What ``thinned.<name>`` is."""
    import thinned

    return operator.attrgetter(name)(thinned)  # type: ignore[no-any-return]
