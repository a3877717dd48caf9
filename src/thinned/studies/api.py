"""``thinned.study``: one call from data to verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from .._errors import InputError, unknown
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
    """Compare dropout with the other regularizers on ``data``, by nested cross-validation; write a report.

    ``data``: None (scikit-learn's handwritten digits), a path (CSV, Parquet, NPZ, folder of IDX files),
    ``"openml:NAME"``, a pair of arrays (x, y), or a DataFrame with ``target``. ``model``: mlp, wide, deep, cnn (images)
    or ``"module:function"``. ``arms``: some of :data:`thinned.studies.design.ARMS`, all by default. ``lr``: of all arms;
    by default validation chooses it. ``rows``: use at most so many. ``budget``: minutes. ``jobs``: processes at once.
    ``out``: the folder for ``report.html``, ``results.parquet``, ``policy.json`` and the records.

    Raises :class:`thinned.InputError` for bad input, before any training.
    """
    if level not in LEVELS:
        raise unknown("level", level, LEVELS)
    settings = replace(LEVELS[level], model=model, arms=tuple(arms), seed=seed, lr=lr)
    if folds is not None:
        settings = replace(settings, folds=folds)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    if budget is not None and not budget > 0:
        raise InputError(f"budget has to be above 0 minutes, but got {budget}")
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs has to be at least 1, but got {jobs}")
    if rows is not None and rows < 1:
        raise InputError(f"rows has to be at least 1, but got {rows}")
    dataset = _dataset(data, target, task, rows, seed)
    outcome = run(dataset, settings, Path(out), resume=resume, budget=budget, jobs=jobs, watcher=watcher, command=command)
    return finish(outcome.store.folder)


def _dataset(data: Any, target: str | None, task: Kind | None, rows: int | None, seed: int) -> Dataset:
    if data is None or isinstance(data, (str, Path)):
        return load(None if data is None else str(data), target, task, rows, seed)
    if isinstance(data, pd.DataFrame):
        return from_frame(data, target, task, rows, seed)
    if isinstance(data, tuple) and len(data) == 2:
        return from_arrays(np.asarray(data[0]), np.asarray(data[1]), task, rows, seed)
    raise InputError(f"data has to be a path, a pair (x, y) of arrays, a DataFrame or None, but got {type(data).__name__}")
