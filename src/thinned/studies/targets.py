"""The target of a study: classes or values, decided by the content of a column."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .._errors import InputError
from .columns import LARGEST, MISSING_TEXTS, clean, decimal_mark, numbers
from .dataset import Array, Kind

CLASSES = 30  # integers with at most so many distinct values are classes


@dataclass(frozen=True)
class Target:
    """A target that was read.

    Args:
        y: int64 class numbers, or float64 values.
        kind: "classification" or "regression".
        classes: The names of the classes, by number.
        rows: The positions of the rows that have a value.
        mark: The decimal mark of its numbers.
    """

    y: Array
    kind: Kind
    classes: list[str]
    rows: Array
    mark: str


def read_target(
    column: pd.Series[Any], kind: Kind | None, name: str, notes: list[str], mark: str | None = None
) -> Target:
    """Read the column to predict.

    Every text is a label, "None" and "NA" too; only empty cells are missing. Numbers of more than
    30 distinct values, or with decimals, are values.

    Args:
        column: The column.
        kind: "classification" or "regression". None: decided from the values.
        name: The name of the column.
        notes: Gets a sentence for each decision.
        mark: The decimal mark of numbers. None: from the values.

    Returns:
        The target.

    Raises:
        InputError: Where there is nothing to predict.
    """
    was_bool = pd.api.types.is_bool_dtype(column)
    was_number = pd.api.types.is_numeric_dtype(column) and not was_bool
    values = clean(column)
    rows = np.flatnonzero(values.notna().to_numpy())
    if len(rows) < len(values):
        notes.append(f"{len(values) - len(rows):,} rows without a value of {name} were left out.")
    values = values.iloc[rows]
    if values.empty:
        raise InputError(f"the table has no rows with a value of {name!r}")
    _note_merged(column, name, notes)
    if values.nunique() < 2:
        raise InputError(
            f"target {name!r} is constant ({_repr_of(values.iloc[0])}); there is nothing to predict"
        )
    mark = mark or decimal_mark(values) or "."
    declared = isinstance(column.dtype, pd.CategoricalDtype) and kind is None
    parsed = numbers(values, mark)
    readable = parsed.notna()
    numeric = (
        not was_bool and not declared and not values.map(lambda v: v is True or v is False).any()
    )
    all_numbers = numeric and bool(readable.all())
    known = parsed[readable]
    whole = bool((known == known.round()).all())
    unknown = sorted({str(v) for v in values[~readable]})
    only_unknown = all(t.lower() in MISSING_TEXTS for t in unknown)
    if kind is None:
        continuous = (
            numeric
            and len(known) > 0
            and not (whole and known.nunique() <= CLASSES)
            and (all_numbers or (only_unknown and known.nunique() > CLASSES))
        )
        kind = "regression" if continuous else "classification"
        guessed = True
    else:
        guessed = False
    if kind == "regression":
        if not (all_numbers or (only_unknown and known.nunique() > 1)):
            text = values[~readable].iloc[0] if not readable.all() else values.iloc[0]
            raise InputError(
                f"regression needs a target of numbers, but {name!r} holds {_repr_of(text)}"
            )
        if unknown:
            notes.append(
                f"{int((~readable).sum()):,} rows were left out where {name} is "
                f"{_listed(unknown)} (for classes: --task classification)."
            )
        y, rows = known.to_numpy(np.float64), rows[readable.to_numpy()]
        if guessed:
            notes.append(
                f"{name} holds numbers, so this is regression; --task classification overrides "
                "that."
            )
        _check_values(y, name)
        return Target(y, kind, [], rows, mark)
    labels, order = _labels(values, parsed if all_numbers and not was_number else None, name, notes)
    if len(order) < 2:
        raise InputError(f"target {name!r} is constant ({order[0]!r}); there is nothing to predict")
    if len(order) > max(CLASSES, len(values) // 5):
        raise InputError(
            f"target {name!r} has {len(order)} classes in {len(values)} rows; for numbers "
            "use --task regression"
        )
    if guessed:
        change = "; --task regression overrides that" if all_numbers else ""
        notes.append(
            f"{name} holds {len(order)} distinct values, so this is classification{change}."
        )
    codes = pd.Categorical(labels, categories=order).codes.astype(np.int64)
    counts = np.bincount(codes, minlength=len(order))
    named = [f"{c} ({n:,})" for c, n in zip(map(str, order), counts, strict=True)]
    notes.append(f"Classes: {', '.join(named[:12])}{' ...' if len(named) > 12 else ''}.")
    return Target(codes, kind, [str(v) for v in order], rows, mark)


def _note_merged(column: pd.Series[Any], name: str, notes: list[str]) -> None:
    spellings: dict[str, set[str]] = {}
    raw = [v for v in pd.unique(column.dropna()) if isinstance(v, str)]
    cleaned = clean(pd.Series(raw, dtype=object))
    for before, after in zip(raw, cleaned, strict=True):
        if after is not None:
            spellings.setdefault(after, set()).add(before)
    merged = {text: found for text, found in spellings.items() if len(found) > 1}
    for text, found in list(merged.items())[:3]:
        notes.append(
            f"{' and '.join(map(repr, sorted(found)))} of {name} print alike and are one class, "
            f"{text!r}."
        )
    if len(merged) > 3:
        notes.append(f"The same holds for {len(merged) - 3} more values of {name}.")


def _labels(
    values: pd.Series[Any], parsed: pd.Series[Any] | None, name: str, notes: list[str]
) -> tuple[pd.Series[Any], list[Any]]:
    """The label of each row, and all labels in order."""
    texts = values.map(str)
    if parsed is not None and not texts.str.match(r"[-+]?0\d").any():
        # texts of numbers: 1 and 1.0 are one class
        canonical = {v: canonical_name(v) for v in pd.unique(texts)}
        doubles = [n for n, k in Counter(canonical.values()).items() if k > 1]
        if doubles:
            notes.append(f"Texts of {name} with equal values are one class: {_listed(doubles)}.")
        texts = texts.map(canonical)
        first = parsed.groupby(texts).first().sort_values()
        return texts, list(first.index)
    if values.map(type).nunique() > 1:  # such as 0 and "0"
        numbers_and_texts = {str(v) for v in pd.unique(values) if not isinstance(v, str)} & {
            v for v in pd.unique(values) if isinstance(v, str)
        }
        if numbers_and_texts:
            notes.append(
                f"Numbers and texts of {name} that print alike are one class: "
                f"{_listed(sorted(numbers_and_texts))}."
            )
        return texts, sorted(pd.unique(texts))
    return values, sorted(pd.unique(values))


def canonical_name(value: object) -> str:
    """The name of a class by its value: 1, 1.0 and "1" are the same class.

    Example:
        >>> canonical_name(1.0), canonical_name("b")
        ('1', 'b')
    """
    text = str(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text


def _check_values(y: Array, name: str) -> None:
    if not np.isfinite(y).all():
        raise InputError(f"target {name!r} holds infinite values; remove those rows")
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(y.std())
    if len(np.unique(y)) < 2:
        raise InputError(f"target {name!r} is constant ({y[0]:g}); there is nothing to predict")
    if not 1 / LARGEST < spread < LARGEST:  # false for NaN too
        raise InputError(
            f"target {name!r} has a standard deviation of {spread:g}, too far from 1 for "
            "32-bit floats; rescale it"
        )


def _listed(texts: list[str]) -> str:
    return ", ".join(map(repr, texts[:5])) + (" ..." if len(texts) > 5 else "")


def _repr_of(value: object) -> str:
    """The repr of a value, without the name of a NumPy type."""
    return repr(value.item() if isinstance(value, np.generic) else value)
