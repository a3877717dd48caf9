"""``thinned.study``: one call from the data to the verdict."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from .._errors import InputError, real, unknown, whole
from .data import from_arrays, from_frame, load
from .dataset import Array, Dataset, Kind
from .design import LEVELS
from .outputs import Result, finish
from .reading import Reading
from .run import StudyProgress, run
from .tables import TableOptions

# also frames of other libraries that have ``to_pandas``, such as Polars
Data = str | Path | tuple[ArrayLike, ArrayLike] | pd.DataFrame | Any


def study(
    data: Data = None,
    *,
    target: Hashable | None = None,
    test: Data = None,
    drop: Sequence[Hashable] = (),
    keep: Sequence[Hashable] = (),
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    na: Sequence[str] = (),
    task: Kind | None = None,
    model: str = "mlp",
    level: Literal["quick", "default", "full"] = "default",
    methods: Sequence[str] = (),
    folds: int | None = None,
    repeats: int | None = None,
    metric: str | None = None,
    class_weight: str | None = None,
    groups: Hashable | None = None,
    time: Hashable | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    rows: int | None = None,
    budget: float | None = None,
    jobs: int | None = None,
    out: str | Path = "thinned-study",
    resume: bool = False,
    progress: StudyProgress | None = None,
    command: str = "",
) -> Result:
    """Compare dropout with other regularizers on your data, and write a report.

    Every method is trained at several strengths in nested cross-validation: inner validation rows
    choose the strength, and the rows of the outer test fold score the choice. docs/study.md
    describes the design and the statistics.

    Args:
        data: None (the handwritten digits of scikit-learn), a path (a table as text, Parquet or
            .xlsx, also in .gz or .zip; an NPZ file; a folder of IDX files), "openml:NAME", a pair
            of arrays (x, y) of which x may be sparse, or a DataFrame of pandas or Polars.
        target: The column to predict, for tables.
        test: A separate test set for a table, a path or a DataFrame. None: none.
        drop: The columns of a table to leave out.
        keep: The columns of a table to keep although they look like an index or identifier.
        sep: The delimiter of a text file. None: recognized from its content.
        decimal: The decimal mark of the numbers in texts, "." or ",". None: recognized.
        encoding: The encoding of a text file. None: recognized.
        na: Texts that count as missing, in addition to empty cells.
        task: "classification" or "regression". None: decided from the target.
        model: "mlp", "wide", "deep", "cnn" (for images), or "module:function" for a function that
            returns an ``nn.Module``; see :class:`thinned.train.Custom`.
        level: "quick" for a first look; "default"; or "full" for more folds, strengths and epochs
            and two more methods.
        methods: The names of the methods to compare, from
            ``thinned.studies.methods.STUDY_METHODS``; "none" is always
            included. Empty: those of ``level``.
        folds: The number of outer folds, at least 2. None: as ``level`` says.
        repeats: How often the division into folds is repeated, at least 1. More repetitions show
            smaller differences. None: as ``level`` says.
        metric: The measure that validation chooses by and the verdict tests: "log-loss", "error",
            "balanced-accuracy", "roc-auc", "f1", "rmse", "mae", "r2", or the name of a scorer of
            scikit-learn. None: log-loss for classification, RMSE for regression.
        class_weight: "balanced": in the loss, all classes have the same total weight. None: all
            rows have the same weight.
        groups: A column of a table; rows with the same value of it are never in two parts of a
            fold, and it is not a feature. None: rows are independent.
        time: A column of a table by which folds are ordered: networks are tested on rows later than
            those that they were trained on. It is not a feature. None: rows are shuffled.
        epochs: The number of epochs of each network. None: enough for the number of updates of
            ``level``, from 20 to 200.
        lr: The learning rate of all methods. None: chosen by validation.
        seed: The seed of folds, weights, batches and masks, from 0 to 2^31 - 1.
        rows: The largest number of rows to use, drawn by the seed. None: all.
        budget: The number of minutes after which no new part of the study is started. None: no
            limit.
        jobs: The number of processes. None: the number of processors, at most eight.
        out: The folder for ``report.html``, ``results.parquet``, ``policy.json`` and the records.
        resume: Whether to continue the study in that folder.
        progress: Called with the progress of the study, for a display. None: no display.
        command: The command line that the report names. Empty: none.

    Returns:
        The result: verdict, table and paths. The result of a study that its budget ended early
        covers the folds that are complete.

    Raises:
        InputError: Where the data, the model or an argument breaks a rule, before any training; or
            where the budget ended before one fold was complete.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> result = study(
        ...     level="quick", methods=["dropout"], folds=2, epochs=1, rows=120, jobs=1, out=folder
        ... )
        >>> [method.name for method in result.analysis.methods]
        ['none', 'dropout']
    """
    if not isinstance(level, str) or level not in LEVELS:
        raise unknown("level", level, LEVELS)
    if task not in (None, "classification", "regression"):
        raise InputError(f"task has to be 'classification', 'regression' or None, but got {task!r}")
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise InputError(
            f"methods has to be a list of names, such as ['dropout', 'l2'], but got {methods!r}"
        )
    settings = replace(LEVELS[level], model=model, methods=tuple(methods), seed=seed, lr=lr)
    if folds is not None:
        settings = replace(settings, folds=folds)
    settings = replace(settings, metric=metric, class_weight=class_weight)
    if repeats is not None:
        settings = replace(settings, repeats=repeats)
    elif time is not None:
        settings = replace(settings, repeats=1)  # one order has no other folds
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    if budget is not None and not real(budget, "budget") > 0:
        raise InputError(f"budget has to be above 0 minutes, but got {budget}")
    jobs = None if jobs is None else whole(jobs, "jobs", 1)
    rows = None if rows is None else whole(rows, "rows", 1)
    folder = folder_of(out)
    reading = Reading(sep=sep, decimal=decimal, encoding=encoding, na=_texts(na, "na"))
    options = TableOptions(
        drop=_texts(drop, "drop"), keep=_texts(keep, "keep"), na=reading.na, mark=decimal
    )
    dataset = _dataset(
        data, target, task, rows, settings.seed, options, reading, test, groups, time
    )
    if progress is None:  # a display shows them before training
        for text in dataset.warnings:
            warnings.warn(text, stacklevel=2)
    outcome = run(
        dataset,
        settings,
        folder,
        resume=resume,
        budget=budget,
        jobs=jobs,
        progress=progress,
        command=command,
    )
    return finish(outcome.store.folder)


def folder_of(out: object) -> Path:
    """The folder of a study. Raises :class:`thinned.InputError` where ``out`` is not a path."""
    if not isinstance(out, (str, Path)) or not str(out):
        raise InputError(f"out has to be the path of a folder, but got {out!r}")
    if "\0" in str(out):
        raise InputError(f"out has to be the path of a folder, without a null, but got {out!r}")
    return Path(out)


def _texts(values: object, name: str) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, (Sequence, pd.Index)):
        raise InputError(f"{name} has to be a list, such as ['a', 'b'], but got {values!r}")
    return tuple(str(v) for v in values)


def _dataset(
    data: object,
    target: object,
    task: Kind | None,
    rows: int | None,
    seed: int,
    options: TableOptions,
    reading: Reading,
    test: object,
    groups: Hashable | None,
    time: Hashable | None,
) -> Dataset:
    structure = {
        name: None if column is None else str(column)
        for name, column in (("groups", groups), ("time", time))
    }
    data, test = _as_pandas(data), _as_pandas(test)
    if isinstance(test, Path):
        test = str(test)
    if not (test is None or isinstance(test, (str, pd.DataFrame))):
        raise InputError(
            f"test has to be a path, a DataFrame or None, but got {type(test).__name__}; for "
            "arrays use an NPZ file with x_test and y_test"
        )
    if isinstance(data, pd.DataFrame):
        reading.check_unused("a DataFrame", ("na", "decimal"))
        name = None if target is None else str(target)
        return from_frame(
            data, name, task, limit=rows, seed=seed, options=options, test=test, **structure
        )
    if target is not None and not isinstance(target, str):
        raise InputError(f"target has to be the name of a column, but got {target!r}")
    if data is None or isinstance(data, (str, Path)):
        if not (data is None or str(data)):
            raise InputError(
                "data is an empty string; pass a path, or leave it out for handwritten digits"
            )
        source = None if data is None else str(data)
        return load(
            source,
            target,
            task,
            limit=rows,
            seed=seed,
            options=options,
            reading=reading,
            test=test,
            **structure,
        )
    if isinstance(data, tuple) and len(data) == 2:
        reading.check_unused("a pair of arrays")
        used = {
            "target": target,
            "test": test,
            "drop": options.drop,
            "keep": options.keep,
            **structure,
        }
        for option, value in used.items():
            if value is not None and not (isinstance(value, tuple) and not value):
                raise InputError(
                    f"{option} is for tables, but data is a pair of arrays; leave out "
                    f"{option}={value!r}"
                )
        x = data[0] if sparse.issparse(data[0]) else _array(data[0], "x")
        return from_arrays(x, _array(data[1], "y"), task, limit=rows, seed=seed)
    raise InputError(
        "data has to be a path, a pair (x, y) of arrays, a DataFrame or None, but got "
        f"{type(data).__name__}"
    )


def _as_pandas(data: object) -> object:
    """A frame of another library, such as Polars, as a DataFrame; anything else as it is."""
    if hasattr(data, "collect") and not hasattr(data, "to_pandas"):  # a lazy frame
        data = data.collect()
    frame = data.to_pandas() if hasattr(data, "to_pandas") else data
    return frame if isinstance(frame, pd.DataFrame) else data


def _array(values: object, name: str) -> Array:
    try:
        return np.asarray(values)
    # ragged lists; tensors that require gradients
    except (ValueError, TypeError, RuntimeError) as error:
        first, *_ = str(error).splitlines() or [""]
        raise InputError(f"{name} cannot be converted to an array: {first}") from None
