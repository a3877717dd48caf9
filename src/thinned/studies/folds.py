"""Outer folds and inner validation rows, each with columns prepared as its own training rows say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .._errors import InputError
from ..train import Split, Task, rows
from .data import LEVELS, Array, Dataset

VAL = 0.2  # of a fold's training rows, to validate on


def check_folds(data: Dataset, folds: int) -> None:
    """Raise unless every fold can have rows of every class, and enough of them."""
    if len(data) < 10 * folds:
        raise InputError(
            f"{folds} folds need at least {10 * folds} rows, but there are {len(data)}; use fewer folds or more rows"
        )
    if data.kind == "classification":
        counts = np.bincount(data.y, minlength=len(data.classes))
        least, need = (
            int(counts.argmin()),
            max(folds, 4 if folds == 2 else 3),
        )  # two in training and validation, one in test
        if counts[least] < need:
            raise InputError(
                f"class {data.classes[least]!r} has {counts[least]} rows, fewer than {need} for {folds} folds; "
                "remove or merge it, or use other --folds"
            )
        val = math.ceil(VAL * (len(data) - math.ceil(len(data) / folds)))
        if val < len(data.classes):
            raise InputError(
                f"{len(data.classes)} classes need as many validation rows, but {folds} folds of {len(data)} rows have {val}; "
                "merge classes, or use more rows"
            )


def splits(data: Dataset, folds: int, repeats: int, seed: int) -> list[Split]:
    """Outer folds, ``repeats`` times over; in each a fifth of the training rows is the inner
    validation set.

    Whatever is learnt from columns (medians, means, categories) is learnt on the fold's training
    rows alone.
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
    fit, centre, spread = _preprocessor(data, train), 0.0, 1.0
    if data.kind == "regression":
        centre, spread = float(data.y[train].mean()), float(data.y[train].std()) or 1.0

    def part(x: Any, y: Array, ids: Array) -> Any:
        return rows(fit(x), (y - centre) / spread if data.kind == "regression" else y, ids)

    def take(index: Array) -> Any:
        x = data.x.iloc[index] if isinstance(data.x, pd.DataFrame) else data.x[index]
        return part(x, data.y[index], index)

    extra = (
        None if data.extra is None else part(*data.extra, len(data) + np.arange(len(data.extra[1])))
    )
    outputs = len(data.classes) if data.kind == "classification" else 1
    return Split(
        Task(data.kind, outputs, spread), take(train), take(val), take(test), extra, data.image
    )


def _preprocessor(data: Dataset, train: Array) -> Any:
    """A function from raw rows to a float array, learnt on the training rows."""
    if (
        data.image is not None
    ):  # one mean and deviation for all pixels, so that pictures can be moved
        pixels = data.x[train]
        mean, std = float(pixels.mean()), float(pixels.std()) or 1.0
        return lambda x: (x - mean) / std
    if not isinstance(data.x, pd.DataFrame):
        scaler = StandardScaler().fit(data.x[train])
        return scaler.transform
    return table_pipeline(data.x).fit(data.x.iloc[train]).transform


def table_pipeline(frame: pd.DataFrame) -> ColumnTransformer:
    """scikit-learn's pipeline for mixed columns: impute and scale numbers, one-hot categories."""
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
