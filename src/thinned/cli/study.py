"""``thinned study``."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from .._errors import InputError
from .._optional import missing


def study(
    data: Annotated[
        str | None,
        typer.Option(
            help="CSV, Parquet or NPZ file, folder of IDX files, or openml:NAME. Default: handwritten digits."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict, in a table.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classification or regression, where it should not be guessed."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="mlp, wide, deep, cnn (images), or module:function returning an nn.Module."
        ),
    ] = "mlp",
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer folds, strengths and epochs: a first look.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="More folds, strengths and epochs, and two more arms.")
    ] = False,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Only these arms, separated by commas, such as dropout,l2,dropout+max-norm."
        ),
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Outer folds.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each network.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate of all arms. Default: by validation.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds, weights, batches and masks.")] = 0,
    rows: Annotated[
        int | None, typer.Option(help="Use at most so many rows, drawn by the seed.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Minutes after which nothing new begins.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes at once. Default: the processors, at most eight.")
    ] = None,
    out: Annotated[
        str, typer.Option(help="The folder for the report and the records.")
    ] = "thinned-study",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the study in that folder.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Draw the report again from the records.")
    ] = False,
) -> None:
    """Does dropout help on your data: which kind, how much, where, and is it better than the other
    regularizers?

    Trains, cross-validates and compares; writes report.html, results.parquet and policy.json.
    """
    said = Console(stderr=True, highlight=False)
    try:
        from ..studies import study as compare
        from ..studies.api import folder_of
        from ..studies.outputs import finish
        from ..studies.progress import Terminal, summary
    except ImportError as error:
        said.print(f"[red]error:[/red] {escape(missing(error, 'study'))}")
        raise typer.Exit(2) from None
    words = ["thinned", *sys.argv[1:]]
    console = Console(highlight=False)
    try:
        if report_only:
            result = finish(folder_of(out))
        else:
            with Terminal(said) as terminal:
                result = compare(
                    data,
                    target=target,
                    task=_one_of("--task", task, ("classification", "regression")),
                    model=model,
                    level=_level(quick, full),
                    arms=_arms(arms),
                    folds=folds,
                    epochs=epochs,
                    lr=lr,
                    seed=seed,
                    rows=rows,
                    budget=budget,
                    jobs=jobs,
                    out=out,
                    resume=resume,
                    watcher=terminal,
                    command=shlex.join(w for w in words if w != "--resume"),
                )
        summary(result, console)
    except InputError as error:
        said.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        again = shlex.join(words if "--resume" in words else [*words, "--resume"])
        said.print(
            f"Interrupted. What is finished is in {escape(out)}; go on with:\n  {escape(again)}",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    except OSError as error:
        said.print(
            f"[red]error:[/red] {escape(str(error))}; what is finished is in {escape(out)}",
            soft_wrap=True,
        )
        raise typer.Exit(1) from None


def _level(quick: bool, full: bool) -> Literal["quick", "default", "full"]:
    if quick and full:
        raise InputError("--quick and --full exclude each other; choose one")
    return "quick" if quick else "full" if full else "default"


def _arms(text: str | None) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise InputError(
            f"--arms has to name arms, such as dropout,l2, but got {text!r}; leave it out for all"
        )
    return names


def _one_of(
    name: str, value: str | None, known: tuple[str, ...]
) -> Literal["classification", "regression"] | None:
    if value is not None and value not in known:
        raise InputError(f"{name} has to be {' or '.join(known)}, but got {value!r}")
    return value  # type: ignore[return-value]
