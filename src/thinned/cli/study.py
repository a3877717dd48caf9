"""The command ``thinned study``."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from .._errors import InputError
from .._optional import missing
from .printable import printable


def study(
    data: Annotated[
        str | None,
        typer.Option(
            help="Table (.csv, .tsv, .txt, .parquet, .xlsx; also .gz, .zip), .npz, folder of IDX "
            "files, or openml:NAME. Default: handwritten digits."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict, for tables.")] = None,
    test: Annotated[
        str | None, typer.Option(help="A separate test set: a table with the same columns.")
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="A column to leave out; may be repeated.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A column to keep although it looks like an index; may be repeated."),
    ] = None,
    sep: Annotated[
        str | None,
        typer.Option(help="Delimiter of a text file; tab, space. Default: recognized."),
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(help="Decimal mark, . or a comma. Default: recognized.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of a text file. Default: recognized.")
    ] = None,
    na: Annotated[
        list[str] | None,
        typer.Option(help="A text that counts as missing; may be repeated. Default: empty cells."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classification or regression. Default: decided from the target."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="mlp, wide, deep, cnn (for images), or module:function returning an nn.Module."
        ),
    ] = "mlp",
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer folds, strengths and epochs: a first look.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="More folds, strengths and epochs, and two more methods.")
    ] = False,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Only these methods, separated by commas, such as dropout,l2,dropout_max_norm."
        ),
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Number of outer folds.")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Number of times that the rows are divided into folds.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="The measure of choice and verdict: log-loss, error, balanced-accuracy, roc-auc, "
            "f1, rmse, mae, r2, or a scorer of scikit-learn. Default: log-loss or rmse."
        ),
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(help="balanced: all classes have the same total weight in the loss."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="The column of groups, such as patients, that no two parts share."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="The column of time: networks are tested on rows later than theirs."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs of each network.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate of all methods. Default: by validation.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, weights, batches and masks.")] = 0,
    rows: Annotated[
        int | None, typer.Option(help="Largest number of rows to use, drawn by the seed.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Minutes after which no new part is started.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Number of processes. Default: that of processors, at most 8."),
    ] = None,
    out: Annotated[
        str, typer.Option(help="Folder for the report and the records.")
    ] = "thinned-study",
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the study in that folder.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report again from the records.")
    ] = False,
) -> None:
    """Does dropout help on your data? Which kind, how much, at which layers, and is it better than
    other regularizers?

    Trains, cross-validates and compares; writes report.html, results.parquet and policy.json.
    """
    printable(sys.stdout)
    printable(sys.stderr)
    errors = Console(stderr=True, highlight=False)
    try:
        from ..studies import study as compare
        from ..studies.api import folder_of
        from ..studies.outputs import finish
        from ..studies.pool import WorkerError
        from ..studies.progress import TerminalProgress, summary
    except ImportError as error:
        errors.print(f"[red]error:[/red] {escape(missing(error, 'study'))}")
        raise typer.Exit(2) from None
    command = ["thinned", *sys.argv[1:]]
    console = Console(highlight=False)
    try:
        if report_only:
            result = finish(folder_of(out))
        else:
            with TerminalProgress(errors) as progress:
                result = compare(
                    data,
                    target=target,
                    test=test,
                    drop=drop or (),
                    keep=keep or (),
                    sep=sep,
                    decimal=decimal,
                    encoding=encoding,
                    na=na or (),
                    task=_one_of("--task", task, ("classification", "regression")),
                    model=model,
                    level=_level(quick, full),
                    methods=_methods(methods),
                    folds=folds,
                    repeats=repeats,
                    metric=metric,
                    class_weight=class_weight,
                    groups=groups,
                    time=time,
                    epochs=epochs,
                    lr=lr,
                    seed=seed,
                    rows=rows,
                    budget=budget,
                    jobs=jobs,
                    out=out,
                    resume=resume,
                    progress=progress,
                    command=shlex.join(part for part in command if part != "--resume"),
                )
        summary(result, console)
    except InputError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        again = shlex.join(command if "--resume" in command else [*command, "--resume"])
        errors.print(
            f"Interrupted. Finished parts are in {escape(out)}; continue with:\n  {escape(again)}",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    except WorkerError as error:
        errors.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        errors.print(
            f"[red]error:[/red] {escape(str(error))}; finished parts are in {escape(out)}",
            soft_wrap=True,
        )
        raise typer.Exit(1) from None


def _level(quick: bool, full: bool) -> Literal["quick", "default", "full"]:
    if quick and full:
        raise InputError("--quick and --full exclude each other; choose one")
    return "quick" if quick else "full" if full else "default"


def _methods(text: str | None) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise InputError(
            f"--methods has to name methods, such as dropout,l2, but got {text!r}; leave it out "
            "for all"
        )
    return names


def _one_of(
    name: str, value: str | None, known: tuple[str, ...]
) -> Literal["classification", "regression"] | None:
    if value is not None and value not in known:
        raise InputError(f"{name} has to be {' or '.join(known)}, but got {value!r}")
    return value  # type: ignore[return-value]
