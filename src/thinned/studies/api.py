"""``thinned.study``: one call from data to verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from .._errors import InputError, real, unknown, whole
from .data import Dataset, Kind, from_arrays, from_frame, load
from .design import LEVELS
from .outputs import Result, finish
from .run import Watcher, run


def study(
    data: str | Path | tuple[Any, Any] | pd.DataFrame | None = None,
    *,
    target: str | None = None,
    task: Kind | None = None,
    model: str = "mlp",
    level: Literal["quick", "default", "full"] = "default",
    arms: Sequence[str] = (),
    folds: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    rows: int | None = None,
    budget: float | None = None,
    jobs: int | None = None,
    out: str | Path = "thinned-study",
    resume: bool = False,
    watcher: Watcher | None = None,
    command: str = "",
) -> Result:
    """Compare dropout with the other regularizers on ``data``, by nested cross-validation; write a
    report.

    ``data``: None (scikit-learn's handwritten digits), a path (CSV, Parquet, NPZ, folder of IDX
    files), ``"openml:NAME"``, a pair of arrays (x, y), or a DataFrame with ``target``. ``model``:
    mlp, wide, deep, cnn (images) or ``"module:function"``. ``arms``: some of
    :data:`thinned.studies.design.ARMS`, all by default. ``lr``: of all arms; by default validation
    chooses it. ``rows``: use at most so many. ``budget``: minutes. ``jobs``: processes at once.
    ``out``: the folder for ``report.html``, ``results.parquet``, ``policy.json`` and the records.

    Raises :class:`thinned.InputError` for bad input, before any training.
    """
    if not isinstance(level, str) or level not in LEVELS:
        raise unknown("level", level, LEVELS)
    if task not in (None, "classification", "regression"):
        raise InputError(f"task has to be 'classification', 'regression' or None, but got {task!r}")
    if isinstance(arms, str) or not isinstance(arms, Sequence):
        raise InputError(
            f"arms has to be a list of names, such as ['dropout', 'l2'], but got {arms!r}"
        )
    settings = replace(LEVELS[level], model=model, arms=tuple(arms), seed=seed, lr=lr)
    if folds is not None:
        settings = replace(settings, folds=folds)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    if budget is not None and not real(budget, "budget") > 0:
        raise InputError(f"budget has to be above 0 minutes, but got {budget}")
    jobs = None if jobs is None else whole(jobs, "jobs", 1)
    rows = None if rows is None else whole(rows, "rows", 1)
    folder = folder_of(out)
    dataset = _dataset(data, target, task, rows, settings.seed)
    outcome = run(
        dataset,
        settings,
        folder,
        resume=resume,
        budget=budget,
        jobs=jobs,
        watcher=watcher,
        command=command,
    )
    return finish(outcome.store.folder)


def folder_of(out: Any) -> Path:
    """Where a study lies. Raises :class:`thinned.InputError` for what is no path."""
    if not isinstance(out, (str, Path)) or not str(out):
        raise InputError(f"out has to be the path of a folder, but got {out!r}")
    return Path(out)


def _dataset(data: Any, target: Any, task: Kind | None, rows: int | None, seed: int) -> Dataset:
    if isinstance(data, pd.DataFrame):
        return from_frame(data, None if target is None else str(target), task, rows, seed)
    if target is not None and not isinstance(target, str):
        raise InputError(f"target has to be the name of a column, but got {target!r}")
    if data is None or isinstance(data, (str, Path)):
        if not (data is None or str(data)):
            raise InputError(
                "data is an empty text; give a path, or leave it out for handwritten digits"
            )
        return load(None if data is None else str(data), target, task, rows, seed)
    if isinstance(data, tuple) and len(data) == 2:
        if target is not None:
            raise InputError(
                f"target is for tables, but this is a pair of arrays; leave out target={target!r}"
            )
        return from_arrays(_array(data[0], "x"), _array(data[1], "y"), task, rows, seed)
    raise InputError(
        f"data has to be a path, a pair (x, y) of arrays, a DataFrame or None, but got {type(data).__name__}"
    )


def _array(values: Any, name: str) -> Any:
    try:
        return np.asarray(values)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # ragged lists; tensors that need gradients
        raise InputError(f"{name} cannot be made an array: {str(error).splitlines()[0]}") from None
