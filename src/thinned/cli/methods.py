"""``thinned methods``: the catalogue, and one method's page."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer


def methods(
    name: Annotated[str | None, typer.Argument(help="One method's page; without it, the table of all.")] = None,
) -> None:
    """Every dropout that is here: name, paper, where it acts; or one method's page."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from .. import presets
    from .._errors import unknown

    console = Console()
    if name is not None:
        if name not in presets.CATALOG:
            typer.echo(unknown("dropout method", name, presets.CATALOG), err=True)
            raise typer.Exit(2)
        row = presets.CATALOG[name]
        what = _public(row.fn) if isinstance(row.fn, str) else row.fn
        where = row.fn if isinstance(row.fn, str) else f"presets.{row.fn.__name__}"
        signature = str(inspect.signature(what)).split(" ->")[0].replace("'", "")
        console.print(f"[bold]{row.title}[/bold]  {row.paper} {row.year}, {row.url}", highlight=False)
        console.print(f"acts on: {row.host}; runs as: {row.status}", highlight=False)
        console.print(f"{row.example}\n\n{where}{signature}\n", highlight=False, markup=False)
        console.print(inspect.getdoc(what), highlight=False, markup=False)
        return
    table = Table(title=f"{len(presets.CATALOG)} methods", title_justify="left")
    for column in ("name", "method", "paper", "acts on", "runs as", "in one line"):
        table.add_column(column, overflow="fold")
    for key, row in presets.CATALOG.items():
        table.add_row(key, row.title, f"{row.paper} {row.year}", row.host, row.status, escape(row.example))
    console.print(table)
    console.print("thinned methods NAME prints a method's page.")


def _public(name: str) -> Callable[..., Any]:
    """What ``thinned.<name>`` is."""
    import thinned

    found: Any = thinned
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]
