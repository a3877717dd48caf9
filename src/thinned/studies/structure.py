"""Columns of a table that decide which rows may be in which fold: groups and time."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .._errors import InputError, nearest

Array = NDArray[Any]
NAMES_OF_TIME = re.compile(
    r"(^|[^a-z])(date|datetime|time|timestamp|year|month|day|week|quarter)s?([^a-z]|$)"
)


def take_groups(frame: pd.DataFrame, column: str, target: str) -> Array:
    """The number of the group of each row.

    Raises :class:`thinned.InputError` where the column does not exist, is the target, or has
    missing values or a single group.
    """
    values = _column(frame, column, target, "--groups")
    codes, levels = pd.factorize(values)
    if len(levels) < 2:
        raise InputError(
            f"--groups {column} needs at least two groups, but the column is constant; use another"
        )
    return np.asarray(codes, np.int64)


def take_time(frame: pd.DataFrame, column: str, target: str) -> Array:
    """The place of each row in time, as float64 or int64.

    Raises :class:`thinned.InputError` where the column does not exist, is the target, has missing
    values, or holds neither numbers nor dates.
    """
    values = as_time(_column(frame, column, target, "--time"))
    if values is None:
        raise InputError(
            f"--time {column} has to hold numbers or dates, but holds "
            f"{frame[column].iloc[0]!r}; use another column"
        )
    if len(np.unique(values)) < 2:
        raise InputError(
            f"--time {column} needs different times, but the column is constant; use another"
        )
    return values


def _column(frame: pd.DataFrame, column: str, target: str, option: str) -> pd.Series[Any]:
    if column not in frame.columns:
        raise InputError(f"{option} {column!r} is not a column; {nearest(column, frame.columns)}")
    if column == target:
        raise InputError(f"{option} {column!r} is the target; use another column")
    missing = int(frame[column].isna().sum())
    if missing:
        raise InputError(
            f"{option} {column!r} has {missing:,} rows without a value; fill or remove them"
        )
    return frame[column]


def as_time(values: pd.Series[Any]) -> Array | None:
    """Values as numbers that order them in time; None where some are neither numbers nor dates."""
    if pd.api.types.is_bool_dtype(values):
        return None
    if isinstance(values.dtype, pd.PeriodDtype):
        values = values.dt.start_time
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        return values.astype("int64").to_numpy()
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all():
        return numbers.to_numpy(np.float64)
    if pd.api.types.is_numeric_dtype(values):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that are guessed value by value
        dates = pd.to_datetime(values, errors="coerce", utc=True)
    return dates.astype("int64").to_numpy() if dates.notna().all() else None


def looks_like_time(frame: pd.DataFrame) -> list[str]:
    """The columns that hold dates, or numbers in the order of the rows under a name of time."""
    found = []
    for column in frame.columns:
        values = frame[column].dropna()
        if values.nunique() < 3:
            continue
        if pd.api.types.is_datetime64_any_dtype(values):
            found.append(str(column))
        elif pd.api.types.is_numeric_dtype(values):
            ordered = values.is_monotonic_increasing or values.is_monotonic_decreasing
            if ordered and NAMES_OF_TIME.search(str(column).lower()):
                found.append(str(column))
        elif pd.to_numeric(values.head(50), errors="coerce").isna().all():
            sample = as_time(values.head(50))
            if sample is not None and as_time(values) is not None:
                found.append(str(column))
    return found


def order_warning(columns: list[str]) -> str:
    """The note on columns that look like time, where rows are shuffled."""
    listed = ", ".join(columns)
    verb = "looks" if len(columns) == 1 else "look"
    return (
        f"{listed} {verb} like time, but rows were shuffled into folds; if later rows are to be "
        f"predicted from earlier ones, use --time {columns[0]}."
    )
