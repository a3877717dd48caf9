"""A dataset: rows and targets before preprocessing, with what was decided when they were read."""

from __future__ import annotations

import hashlib
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[Any]
Matrix = Any  # Array, pd.DataFrame or sparse.csr_array
Kind = Literal["classification", "regression"]


@dataclass
class Dataset:
    """Rows and their targets, before any preprocessing.

    Args:
        name: The name of the data, for the report.
        x: A DataFrame of numbers, categories and texts, a float array [n, features], or a sparse
            CSR array of that shape.
        y: The targets [n]: int64 class numbers, or float64 values.
        kind: "classification" or "regression".
        classes: The names of the classes, by number.
        image: (channels, height, width) where each row is an image. None for tables.
        extra: A separate test set (x, y) that came with the data. None: none.
        notes: What was decided or left out, in sentences for the terminal and the report.
        warnings: What may make the results of the study wrong, in sentences.
        columns: How each column of a table is read: (name, type, remark).
        texts: The columns of ``x`` that hold free text.
        target: The name of the target.
        groups: For each row, the number of its group, which no two folds share. None: no groups.
        time: For each row, its place in time, by which folds are ordered. None: no order.
    """

    name: str
    x: Matrix
    y: Array
    kind: Kind
    _: KW_ONLY
    classes: list[str] = field(default_factory=list)
    image: tuple[int, int, int] | None = None
    extra: tuple[Matrix, Array] | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: list[tuple[str, str, str]] = field(default_factory=list)
    texts: tuple[str, ...] = ()
    target: str = "y"
    groups: Array | None = None
    time: Array | None = None

    def __len__(self) -> int:
        return len(self.y)

    def digest(self) -> str:
        """A hash of all rows, by which a resumed study checks that its data are the same."""
        digest = hashlib.blake2b(digest_size=8)
        for part in (self.x, self.y, *(self.extra or ()), self.groups, self.time):
            if isinstance(part, pd.DataFrame):
                digest.update(repr(list(part.columns)).encode("utf-8", "backslashreplace"))
                arrays = [pd.util.hash_pandas_object(part, index=False).to_numpy()]
            elif sparse.issparse(part):
                arrays = [part.indptr, part.indices, part.data]
            else:
                arrays = [] if part is None else [part]
            digest.update(b"|")
            for array in arrays:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def take_rows(x: Matrix, index: Array) -> Matrix:
    """The rows of a table, an array or a sparse array at ``index``."""
    return x.iloc[index].reset_index(drop=True) if isinstance(x, pd.DataFrame) else x[index]


def row_hashes(x: Matrix, y: Array) -> Array:
    """A hash of each row with its target, equal for equal rows: uint64 [n]."""
    if isinstance(x, pd.DataFrame):
        both = x.assign(**{"\0target": y})
        return pd.util.hash_pandas_object(both, index=False).to_numpy()
    if sparse.issparse(x):
        ends = zip(x.indptr[:-1], x.indptr[1:], strict=True)
        rows = (x.indices[a:b].tobytes() + x.data[a:b].tobytes() for a, b in ends)
    else:
        rows = (row.tobytes() for row in np.ascontiguousarray(x))
    digests = [
        hashlib.blake2b(row + target.tobytes(), digest_size=8).digest()
        for row, target in zip(rows, y, strict=True)
    ]
    return np.frombuffer(b"".join(digests), np.uint64)
