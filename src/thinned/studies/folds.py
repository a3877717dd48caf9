"""Outer folds and inner validation rows, preprocessed by what their training rows determine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler

from .._errors import InputError
from ..train import Rows, Split, Task, rows
from .columns import LEVELS, is_number
from .dataset import Array, Dataset, take_rows
from .tables import TEXT_FEATURES

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
            numbers = (
                ", or --task regression where the target is a number"
                if all(map(is_number, data.classes))
                else ""
            )
            raise InputError(
                f"class {data.classes[least]!r} has {counts[least]} rows, fewer than {need} for "
                f"{folds} folds; remove or merge it, or use other --folds{numbers}"
            )
        val = math.ceil(VAL * (len(data) - math.ceil(len(data) / folds)))
        if val < len(data.classes):
            raise InputError(
                f"{len(data.classes)} classes need as many validation rows, but {folds} folds of "
                f"{len(data)} rows have {val}; merge classes, or use more rows"
            )


def splits(
    data: Dataset, folds: int, repeats: int, seed: int, class_weight: str | None = None
) -> list[Split]:
    """The outer folds, ``repeats`` times, each with a fifth of its training rows for validation.

    With groups, the rows of a group are in one part only. With a time, the rows are cut into
    ``folds`` + 1 blocks; each block but the first is tested once, by networks that were trained on
    the blocks before it and validated on the last fifth of those.

    All preprocessing (medians, means, categories) is fitted on the training rows of the fold.
    """
    if data.time is not None and repeats > 1:
        raise InputError(
            "--repeats draws other folds each time, but --time has one order; leave out one"
        )
    if class_weight is not None and data.kind == "regression":
        raise InputError("--class-weight is for classification; leave it out for regression")
    check_folds(data, folds)
    out = []
    for repeat in range(repeats):
        for fold, (outer, test) in enumerate(_outer(data, folds, seed + 1000 * repeat)):
            train, val = _inner(data, outer, seed + 1000 * repeat + fold)
            out.append(_split(data, train, val, test, class_weight))
    return out


def _outer(data: Dataset, folds: int, seed: int) -> list[tuple[Array, Array]]:
    """The training and test rows of each fold."""
    n = len(data)
    classes = data.kind == "classification"
    if data.time is not None:
        order = np.argsort(data.time, kind="stable")
        times = data.time[order]
        # rows of equal time are in one block
        cuts = [int(np.searchsorted(times, times[n * k // (folds + 1)])) for k in range(folds + 1)]
        blocks = [order[a:b] for a, b in zip(cuts, [*cuts[1:], n], strict=True)]
        if min(map(len, blocks)) < 5:
            raise InputError(
                f"{folds} folds in time need {folds + 1} blocks of at least 5 rows, but equal "
                "times leave fewer; use fewer --folds"
            )
        pairs = [(np.concatenate(blocks[:k]), blocks[k]) for k in range(1, folds + 1)]
        if data.groups is not None:
            groups = data.groups
            pairs = [(a[~np.isin(groups[a], groups[b])], b) for a, b in pairs]
        return pairs
    if data.groups is not None:
        count = len(np.unique(data.groups))
        if count < folds:
            raise InputError(
                f"{folds} folds need at least {folds} groups, but there are {count}; use fewer "
                "--folds"
            )
        splitter = (StratifiedGroupKFold if classes else GroupKFold)(
            folds, shuffle=True, random_state=seed
        )
        return list(splitter.split(np.zeros(n), data.y, data.groups))
    kind = StratifiedKFold if classes else KFold
    return list(kind(folds, shuffle=True, random_state=seed).split(np.zeros(n), data.y))


def _inner(data: Dataset, outer: Array, seed: int) -> tuple[Array, Array]:
    """The rows to train on and to validate on, of the training rows of a fold."""
    if data.time is not None:
        order = outer[np.argsort(data.time[outer], kind="stable")]
        cut = len(order) - math.ceil(VAL * len(order))
        train, val = order[:cut], order[cut:]
        if data.groups is not None:
            train = train[~np.isin(data.groups[train], data.groups[val])]
    elif data.groups is not None:
        if len(np.unique(data.groups[outer])) < 2:
            raise InputError(
                "the training rows of a fold are of one group, which leaves none for validation; "
                "--groups needs a column with more groups"
            )
        cut = GroupShuffleSplit(1, test_size=VAL, random_state=seed)
        a, b = next(cut.split(outer, groups=data.groups[outer]))
        train, val = outer[a], outer[b]
    else:
        strata = data.y[outer] if data.kind == "classification" else None
        train, val = train_test_split(outer, test_size=VAL, random_state=seed, stratify=strata)
    decided = data.time is not None or data.groups is not None  # without, check_folds suffices
    if decided and min(len(train), len(val)) < 4:
        raise InputError(
            f"a fold has {len(train)} rows to train on and {len(val)} to validate on, which is too "
            "few; use fewer --folds, or groups of more equal size"
        )
    return train, val


def _split(data: Dataset, train: Array, val: Array, test: Array, class_weight: str | None) -> Split:
    fit, center, spread = _preprocessor(data, train), 0.0, 1.0
    if data.kind == "regression":
        center, spread = float(data.y[train].mean()), float(data.y[train].std()) or 1.0
    weights = None
    if class_weight == "balanced":
        counts = np.bincount(data.y[train], minlength=len(data.classes))
        # of a class without training rows, no row is weighted in training
        weights = tuple((len(train) / (len(counts) * np.maximum(counts, 1))).tolist())

    def part(x: Any, y: Array, ids: Array) -> Rows:
        return rows(fit(x), (y - center) / spread if data.kind == "regression" else y, ids)

    def take(index: Array) -> Rows:
        return part(take_rows(data.x, index), data.y[index], index)

    extra = (
        None if data.extra is None else part(*data.extra, len(data) + np.arange(len(data.extra[1])))
    )
    outputs = len(data.classes) if data.kind == "classification" else 1
    task = Task(data.kind, outputs, spread, center, weights)
    return Split(task, take(train), take(val), test=take(test), extra=extra, image=data.image)


def _preprocessor(data: Dataset, train: Array) -> Callable[[Any], Array]:
    """A function from raw rows to a float array, fitted on the training rows."""
    # one mean and deviation for all pixels, so that images can be shifted and rotated
    if data.image is not None:
        pixels = data.x[train]
        mean, std = float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))
        return lambda x: (x.astype(np.float64) - mean) / (std or 1.0)
    if isinstance(data.x, pd.DataFrame):
        return table_pipeline(data.x, data.texts).fit(take_rows(data.x, train)).transform
    if sparse.issparse(data.x):
        return MaxAbsScaler().fit(data.x[train]).transform  # keeps zeros
    # in float64, because values such as times differ less than float32 can represent
    scaler = StandardScaler().fit(data.x[train].astype(np.float64))
    return lambda x: scaler.transform(x.astype(np.float64))


def table_pipeline(frame: pd.DataFrame, texts: Sequence[str] = ()) -> ColumnTransformer:
    """A scikit-learn transformer for the features of a table.

    It imputes and scales numbers, one-hot encodes categories, and weights the words of texts by
    TF-IDF. With texts, its result is sparse.

    Args:
        frame: The features.
        texts: The columns of free text.

    Returns:
        The transformer, not fitted.
    """
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]
    categorical = [c for c in frame if c not in numeric and c not in texts]
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    levels = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=LEVELS,
        sparse_output=bool(texts),
        dtype=np.float32,
    )
    parts: list[tuple[str, Any, Any]] = [
        ("numbers", numbers, numeric),
        ("categories", levels, categorical),
    ]
    # one-letter words count too, so that no text is without words
    words = TfidfVectorizer(
        max_features=TEXT_FEATURES, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    parts += [(f"words of {c}", clone(words), c) for c in texts]
    return ColumnTransformer(parts, sparse_threshold=1.0 if texts else 0.0)
