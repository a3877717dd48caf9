"""The commands of ``thinned``."""

from __future__ import annotations

from typing import Annotated

import typer

from .check import check
from .methods import methods
from .study import study

app = typer.Typer(
    help="Every dropout method, and tools to choose, check and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(study)
app.command()(methods)
app.command()(check)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    """Every dropout method, and tools to choose, check and measure them."""
