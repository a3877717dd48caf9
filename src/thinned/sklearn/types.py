"""The types of the arguments of the estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..algebra.drop import Drop
from ..algebra.schedule import Schedule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from scipy.sparse import sparray, spmatrix  # sparray is newer than the oldest SciPy that works

Rows: TypeAlias = "ArrayLike | sparray | spmatrix"  # [rows, features]; data frames are array-like
Noise: TypeAlias = float | str | Drop | Schedule | Mapping[str, Any] | None  # at one place
Seed: TypeAlias = int | np.random.RandomState | None
Units: TypeAlias = int | Sequence[int]
Weight: TypeAlias = float | Schedule
