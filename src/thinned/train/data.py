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
class SparseMatrix:
    """Rows that are mostly zeros, stored without them (CSR).

    A slice of it is a dense tensor, so that a minibatch is dense and the data are not.

    Args:
        start: The position of the first entry of each row, and the number of entries: int64
            [n + 1].
        column: The column of each entry: int64.
        value: The value of each entry: float32.
        width: The number of columns.

    Example:
        >>> import torch
        >>> matrix = SparseMatrix(
        ...     torch.tensor([0, 1, 2]), torch.tensor([2, 0]), torch.tensor([5.0, 7.0]), 3
        ... )
        >>> matrix[:].tolist()
        [[0.0, 0.0, 5.0], [7.0, 0.0, 0.0]]
    """

    start: Tensor
    column: Tensor
    value: Tensor
    width: int

    @property
    def shape(self) -> torch.Size:
        """(rows, columns)."""
        return torch.Size((len(self), self.width))

    def __len__(self) -> int:
        return len(self.start) - 1

    def take(self, index: Tensor | slice) -> SparseMatrix:
        """The rows at ``index``: int64 [k] or a slice."""
        rows = torch.arange(len(self))[index]
        counts = (self.start[1:] - self.start[:-1])[rows]
        start = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
        entries = (
            torch.arange(int(start[-1]))
            - torch.repeat_interleave(start[:-1], counts)
            + torch.repeat_interleave(self.start[:-1][rows], counts)
        )
        return SparseMatrix(start, self.column[entries], self.value[entries], self.width)

    def dense(self) -> Tensor:
        """All rows as a float32 tensor [n, width]."""
        out = torch.zeros(self.shape)
        rows = torch.repeat_interleave(torch.arange(len(self)), self.start[1:] - self.start[:-1])
        out[rows, self.column] = self.value
        return out

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.take(index).dense()


@dataclass(frozen=True)
class Rows:
    """Examples with their targets and sample ids; :func:`rows` makes them from arrays.

    Args:
        x: The inputs: float32 [n, features], or a :class:`SparseMatrix` of that shape.
        y: The targets: int64 [n] classes, or float32 [n] standardized values.
        ids: The sample ids: int64 [n]. The masks of an example are a function of its id.

    Example:
        >>> import torch
        >>> len(Rows(torch.ones(3, 2), torch.tensor([0, 1, 0]), torch.arange(3)))
        3
    """

    x: Tensor | SparseMatrix
    y: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor | slice) -> Rows:
        """The rows at ``index``: int64 [k] or a slice."""
        x = self.x.take(index) if isinstance(self.x, SparseMatrix) else self.x[index]
        return Rows(x, self.y[index], self.ids[index])

    @property
    def dense_x(self) -> Tensor:
        """The inputs as a dense tensor: float32 [n, features]."""
        return self.x.dense() if isinstance(self.x, SparseMatrix) else self.x


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
        x: Numbers [n, ...], converted to float32 [n, features]; or a sparse matrix of SciPy, which
            is kept sparse.
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
    inputs: Tensor | SparseMatrix
    if hasattr(x, "tocsr"):
        matrix = x.tocsr()
        matrix.sum_duplicates()
        value = np.asarray(matrix.data, np.float32)
        inputs = SparseMatrix(
            torch.from_numpy(np.asarray(matrix.indptr, np.int64)),
            torch.from_numpy(np.asarray(matrix.indices, np.int64)),
            torch.from_numpy(value),
            matrix.shape[1],
        )
    else:
        value = np.asarray(x, np.float32)
        value = np.ascontiguousarray(value.reshape(len(value), -1))
        inputs = torch.from_numpy(value)
    if len(inputs) != len(y):
        raise InputError(
            f"x has {len(inputs)} rows, but y has {len(y)}; pass one target for each row"
        )
    if not np.isfinite(value).all():
        raise InputError("x holds values that are not finite; impute or drop them first")
    target = torch.from_numpy(
        y.astype(np.int64 if np.issubdtype(y.dtype, np.integer) else np.float32)
    )
    if not target.isfinite().all():
        raise InputError("y holds values that are not finite; drop those rows first")
    return Rows(
        inputs,
        target,
        torch.arange(len(y)) if ids is None else torch.from_numpy(np.asarray(ids, np.int64)),
    )


def epoch_order(n: int, shuffle: int, epoch: int) -> Tensor:
    """The order of the rows in an epoch: a permutation determined by ``shuffle`` and ``epoch``."""
    return torch.from_numpy(np.random.default_rng((shuffle, epoch)).permutation(n))
