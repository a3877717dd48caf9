"""``thinned methods``: the catalogue, and one method's page."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer


def methods(
    name: Annotated[str | None, typer.Argument(help="One method's page; without it, the table of all.")] = None,
) -> None:
    """Every dropout that is here: name, paper, where it acts; or one method's page."""
    from rich.console import Console
    from rich.table import Table

    from .. import presets
    from .._errors import unknown

    console = Console()
    if name is not None:
        if name not in presets.CATALOG:
            typer.echo(unknown("dropout method", name, presets.CATALOG), err=True)
            raise typer.Exit(2)
        row = presets.CATALOG[name]
        signature = str(inspect.signature(row.fn)).split(" ->")[0]
        console.print(f"[bold]{row.title}[/bold]  {row.paper} {row.year}, {row.url}", highlight=False)
        console.print(f'nn.Dropout("{name}", ...) or presets.{row.fn.__name__}{signature}\n', highlight=False, markup=False)
        console.print(inspect.getdoc(row.fn), highlight=False, markup=False)
        return
    table = Table(title=f"{len(presets.CATALOG)} methods", title_justify="left")
    for column in ("name", "method", "paper", "acts on", "default"):
        table.add_column(column)
    for key, row in presets.CATALOG.items():
        table.add_row(key, row.title, f"{row.paper} {row.year}", row.host, f"{row.strength} = {row.fn().rate:g}")
    console.print(table)
    console.print("thinned methods NAME prints a method's page.")
