"""Rows to train on, as tensors."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .._errors import InputError


@dataclass(frozen=True)
class Rows:
    """Examples with their targets and sample ids; :func:`rows` makes them from arrays.

    Args:
        x: The inputs: float32 [n, features].
        y: The targets: int64 [n] classes, or float32 [n] standardized values.
        ids: The sample ids: int64 [n]. The masks of an example are a function of its id.

    Example:
        >>> import torch
        >>> len(Rows(torch.ones(3, 2), torch.tensor([0, 1, 0]), torch.arange(3)))
        3
    """

    x: Tensor
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor | slice) -> Rows:
        """The rows at ``index``: int64 [k] or a slice."""
        return Rows(self.x[index], self.y[index], self.ids[index])


@dataclass(frozen=True)
class Task:
    """What a network predicts.

    Args:
        kind: "classification" or "regression".
        outputs: The number of classes, or 1 for regression.
        scale: The standard deviation of the target in its own unit, by which a regression target
            was divided.
        center: The mean that was subtracted from a regression target.
        class_weights: For each class, the weight of its rows in the loss. None: 1.

    Example:
        >>> Task("classification", 10).metric
        'error'
    """

    kind: Literal["classification", "regression"]
    outputs: int
    scale: float = 1.0
    center: float = 0.0
    class_weights: tuple[float, ...] | None = None

    @property
    def metric(self) -> str:
        """The name of the metric: "error" (rate) of classification, "rmse" of regression."""
        return "error" if self.kind == "classification" else "rmse"


@dataclass(frozen=True)
class Split:
    """Training, validation and test rows of one fold.

    Args:
        task: What is predicted.
        train: The rows to train on.
        val: The rows to validate on, after each epoch.
        test: The rows to score on in the end. None: none.
        extra: The rows of a separate test set that came with the data. None: none.
        image: (channels, height, width) where each row is an image. None for tables.

    Example:
        >>> import numpy as np
        >>> part = rows(np.ones((4, 2)), np.array([0, 1, 0, 1]))
        >>> Split(Task("classification", 2), part, part).inputs
        2
    """

    task: Task
    train: Rows
    val: Rows
    _: KW_ONLY
    test: Rows | None = None
    extra: Rows | None = None
    image: tuple[int, int, int] | None = None

    @property
    def inputs(self) -> int:
        """The number of features of a row."""
        return self.train.x.shape[1]


def rows(x: ArrayLike, y: ArrayLike, ids: ArrayLike | None = None) -> Rows:
    """Convert arrays to :class:`Rows`; images are flattened.

    Args:
        x: Numbers [n, ...], converted to float32 [n, features].
        y: Integers [n] (classes) or floating-point numbers [n] (standardized targets).
        ids: Integers [n], the sample ids. None: 0 to n - 1.

    Returns:
        The rows, as tensors.

    Raises:
        InputError: Where shapes do not match or a value is not finite.

    Example:
        >>> import numpy as np
        >>> rows(np.ones((4, 3, 3)), np.array([0, 1, 0, 1])).x.shape
        torch.Size([4, 9])
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise InputError(
            f"y has to be 1-d, with one number for each row, but got shape {list(y.shape)}; pass "
            "y.ravel() for one column"
        )
    x = np.asarray(x, np.float32)
    x = np.ascontiguousarray(x.reshape(len(x), -1))
    if len(x) != len(y):
        raise InputError(f"x has {len(x)} rows, but y has {len(y)}; pass one target for each row")
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


def epoch_order(n: int, shuffle: int, epoch: int) -> Tensor:
    """The order of the rows in an epoch: a permutation determined by ``shuffle`` and ``epoch``."""
    return torch.from_numpy(np.random.default_rng((shuffle, epoch)).permutation(n))
