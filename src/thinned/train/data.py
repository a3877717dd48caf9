"""Rows to train on, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError


@dataclass(frozen=True)
class Rows:
    """``x``: float32 [n, features]; ``y``: int64 [n] classes or float32 [n] standardised targets;
    ``ids``: int64 [n].
    """

    x: Tensor
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor | slice) -> Rows:
        return Rows(self.x[index], self.y[index], self.ids[index])


@dataclass(frozen=True)
class Task:
    """What is predicted. ``outputs``: classes, or 1 for regression. ``scale``: the target's
    standard deviation in its unit.
    """

    kind: Literal["classification", "regression"]
    outputs: int
    scale: float = 1.0

    @property
    def metric(self) -> str:
        return "error" if self.kind == "classification" else "rmse"


@dataclass(frozen=True)
class Split:
    """Training, validation and test rows of one fold. ``image``: (channels, height, width) if rows
    are images.
    """

    task: Task
    train: Rows
    val: Rows
    test: Rows | None = None
    extra: Rows | None = None
    image: tuple[int, int, int] | None = None

    @property
    def inputs(self) -> int:
        return self.train.x.shape[1]


def rows(x: np.ndarray, y: np.ndarray, ids: np.ndarray | None = None) -> Rows:
    """Arrays as :class:`Rows`; images are flattened. Raises :class:`thinned.InputError` on wrong
    shapes or NaN.
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise InputError(
            f"y has to be 1-d, one number a row, but got shape {list(y.shape)}; pass y.ravel() for one column"
        )
    x = np.ascontiguousarray(np.asarray(x, np.float32).reshape(len(x), -1))
    if len(x) != len(y):
        raise InputError(f"x has {len(x)} rows, but y has {len(y)}")
    if not np.isfinite(x).all():
        raise InputError("x holds values that are not finite; impute or drop them first")
    target = torch.from_numpy(
        y.astype(np.int64 if np.issubdtype(y.dtype, np.integer) else np.float32)
    )
    if not target.isfinite().all():
        raise InputError("y holds values that are not finite; drop those rows first")
    return Rows(
        torch.from_numpy(x),
        target,
        torch.arange(len(y)) if ids is None else torch.from_numpy(np.asarray(ids, np.int64)),
    )


def order(n: int, shuffle: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation that depends on its seed and the epoch alone."""
    return torch.from_numpy(np.random.default_rng((shuffle, epoch)).permutation(n))
