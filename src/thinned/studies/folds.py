"""Outer folds and inner validation rows, preprocessed by what their training rows determine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .._errors import InputError
from ..train import Rows, Split, Task, rows
from .data import LEVELS, Array, Dataset

VAL = 0.2  # the fraction of the training rows of a fold that validates


def check_folds(data: Dataset, folds: int) -> None:
    """Raise :class:`thinned.InputError` unless every fold can have enough rows of every class."""
    if len(data) < 10 * folds:
        raise InputError(
            f"{folds} folds need at least {10 * folds} rows, but there are {len(data)}; use fewer "
            "folds or more rows"
        )
    if data.kind == "classification":
        counts = np.bincount(data.y, minlength=len(data.classes))
        # at least two rows of a class for training and validation, and one for the test
        least, need = int(counts.argmin()), max(folds, 4 if folds == 2 else 3)
        if counts[least] < need:
            raise InputError(
                f"class {data.classes[least]!r} has {counts[least]} rows, fewer than {need} for "
                f"{folds} folds; remove or merge it, or use other --folds"
            )
        val = math.ceil(VAL * (len(data) - math.ceil(len(data) / folds)))
        if val < len(data.classes):
            raise InputError(
                f"{len(data.classes)} classes need as many validation rows, but {folds} folds of "
                f"{len(data)} rows have {val}; merge classes, or use more rows"
            )


def splits(data: Dataset, folds: int, repeats: int, seed: int) -> list[Split]:
    """The outer folds, ``repeats`` times, each with a fifth of its training rows for validation.

    All preprocessing (medians, means, categories) is fitted on the training rows of the fold.
    """
    check_folds(data, folds)
    out = []
    for repeat in range(repeats):
        kind = StratifiedKFold if data.kind == "classification" else KFold
        cut = kind(folds, shuffle=True, random_state=seed + 1000 * repeat)
        for fold, (outer, test) in enumerate(cut.split(np.zeros(len(data)), data.y)):
            strata = data.y[outer] if data.kind == "classification" else None
            train, val = train_test_split(
                outer, test_size=VAL, random_state=seed + 1000 * repeat + fold, stratify=strata
            )
            out.append(_split(data, train, val, test))
    return out


def _split(data: Dataset, train: Array, val: Array, test: Array) -> Split:
    fit, center, spread = _preprocessor(data, train), 0.0, 1.0
    if data.kind == "regression":
        center, spread = float(data.y[train].mean()), float(data.y[train].std()) or 1.0

    def part(x: Any, y: Array, ids: Array) -> Rows:
        return rows(fit(x), (y - center) / spread if data.kind == "regression" else y, ids)

    def take(index: Array) -> Rows:
        x = data.x.iloc[index] if isinstance(data.x, pd.DataFrame) else data.x[index]
        return part(x, data.y[index], index)

    extra = (
        None if data.extra is None else part(*data.extra, len(data) + np.arange(len(data.extra[1])))
    )
    outputs = len(data.classes) if data.kind == "classification" else 1
    task = Task(data.kind, outputs, spread)
    return Split(task, take(train), take(val), test=take(test), extra=extra, image=data.image)


def _preprocessor(data: Dataset, train: Array) -> Callable[[Any], Array]:
    """A function from raw rows to a float array, fitted on the training rows."""
    # one mean and deviation for all pixels, so that images can be shifted and rotated
    if data.image is not None:
        pixels = data.x[train]
        mean, std = float(pixels.mean()), float(pixels.std()) or 1.0
        return lambda x: (x - mean) / std
    if not isinstance(data.x, pd.DataFrame):
        scaler = StandardScaler().fit(data.x[train])
        return scaler.transform
    return table_pipeline(data.x).fit(data.x.iloc[train]).transform


def table_pipeline(frame: pd.DataFrame) -> ColumnTransformer:
    """A scikit-learn transformer: imputes and scales numbers, one-hot encodes categories."""
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]
    categorical = [c for c in frame if c not in numeric]
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    levels = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=LEVELS,
        sparse_output=False,
        dtype=np.float32,
    )
    return ColumnTransformer(
        [("numbers", numbers, numeric), ("categories", levels, categorical)], sparse_threshold=0.0
    )
