"""Tables as datasets: their target, their features, and what is reported about them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .._errors import InputError, nearest
from .columns import LEVELS, ColumnType, clean, column_type, dates, decimal_mark, numbers, without
from .dataset import Array, Dataset, Kind, row_hashes
from .reading import check_distinct
from .structure import looks_like_time, order_warning, take_groups, take_time
from .targets import canonical_name, read_target

KEY_NAME = re.compile(
    r"(?i:(^|[ _.-])(id|key|index|idx|uuid|guid|row|rowid|row_?(number|no|nr))$)|[a-z]I[dD]$"
)
TIME_NAME = re.compile(r"(?i)date|time|year|month|day|hour|minute|second|epoch|stamp|^t$|^ts$")
UNNAMED = re.compile(r"(Unnamed: \d+|index|level_\d+|)$")
FOOTER = re.compile(r"(?i)(grand )?(total|subtotal|sum|average|mean)s?\b|(source|notes?)\s*:")
SAMPLE = 2000  # rows on which linear combinations are looked for
COMBINED = 200  # at most so many columns are combined
EXACT = 1e-6  # the largest residual, in standard deviations of the target
TEXT_FEATURES = 2000  # words of a text column that become features


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What is done with the columns of a table.

    Args:
        drop: The columns to leave out.
        keep: The columns to keep although they look like keys.
        na: Texts that count as missing, in addition to empty cells.
        mark: The decimal mark. None: from the texts.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    na: tuple[str, ...] = ()
    mark: str | None = None


def table(
    frame: pd.DataFrame,
    target: str | None,
    kind: Kind | None,
    name: str,
    options: TableOptions | None = None,
    *,
    test: pd.DataFrame | None = None,
    groups: str | None = None,
    time: str | None = None,
    notes: Sequence[str] = (),
) -> Dataset:
    """A table as a dataset.

    Args:
        frame: The table.
        target: The column to predict.
        kind: "classification" or "regression". None: decided from the target.
        name: The name of the data.
        options: What is done with columns. None: the defaults.
        test: A separate test set with the same columns.
        groups: The column with the groups of rows, which is not a feature.
        time: The column with the times of rows, which is not a feature.
        notes: Sentences about how the table was read.

    Returns:
        The dataset.

    Raises:
        InputError: Where the table cannot be used.
    """
    options = options or TableOptions()
    said, frame = list(notes), _with_text_names(frame)
    known = list(frame.columns)
    _check_target(target, known)
    assert target is not None
    check_distinct(known)
    for option, columns in (("--drop", options.drop), ("--keep", options.keep)):
        for column in columns:
            if column not in known:
                raise InputError(f"{option} {column!r} is not a column; {nearest(column, known)}")
            if column == target:
                raise InputError(f"{option} {column!r} is the target; name other columns")
    if contradiction := set(options.drop) & set(options.keep):
        raise InputError(f"--drop and --keep both name {min(contradiction)!r}; name it in one")
    _check_hashable(frame)
    if options.drop:
        said.append(f"Left out by --drop: {', '.join(options.drop)}.")
        frame = frame.drop(columns=list(options.drop))
    raw = frame
    frame = frame.apply(lambda c: without(clean(c), options.na)) if len(frame) else frame
    empty = frame.isna().all(axis=1)
    if empty.any():
        said.append(f"{int(empty.sum()):,} empty rows were left out.")
        frame, raw = frame[~empty], raw[~empty]
    footers = _footer_rows(frame, target)
    if footers:
        text = ", ".join(repr(str(frame.loc[i].dropna().iloc[0])[:40]) for i in footers)
        said.append(f"{len(footers)} last rows look like a footer and were left out: {text}.")
        frame, raw = frame.drop(index=footers), raw.drop(index=footers)
    labels = raw[target].where(frame[target].notna()) if options.na else raw[target]
    found = read_target(labels, kind, target, said, options.mark)
    structure = [c for c in (groups, time) if c is not None]
    numbers_of_groups, times = _structure(frame.iloc[found.rows], target, groups, time, said)
    features = frame.drop(columns=[target, *structure])
    if features.shape[1] == 0:
        raise InputError("the table has no column besides the target")
    types = _types(features, raw, options, said)
    rows = found.rows
    data = Dataset(
        name,
        pd.DataFrame(),
        found.y,
        found.kind,
        classes=found.classes,
        notes=said,
        target=target,
        texts=tuple(c for c, t in types.items() if t.kind == "text"),
        columns=[(c, t.kind, t.remark) for c, t in types.items()],
        groups=numbers_of_groups,
        time=times,
    )
    if time is None:
        in_order = looks_like_time(_ordered(features.iloc[rows], types))
        data.warnings += [order_warning(in_order)] if in_order else []
    data.x = _features(features.iloc[rows].reset_index(drop=True), types, said)
    if test is not None:
        data.extra = _test_set(data, test, known, types, options, found.mark)
    _warn(data)
    return data


def _with_text_names(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.reset_index(drop=True)
    if isinstance(frame.columns, pd.MultiIndex):
        frame.columns = pd.Index([" ".join(map(str, c)) for c in frame.columns])
    else:
        frame.columns = pd.Index([str(c) for c in frame.columns], dtype=object)
    return frame


def _check_target(target: str | None, known: list[str]) -> None:
    if target is None:
        listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
        raise InputError(
            f"a table needs the column to predict: --target NAME; its columns are {listed}"
        )
    if target not in known:
        raise InputError(f"target {target!r} is not a column; {nearest(target, known)}")


def _check_hashable(frame: pd.DataFrame) -> None:
    for column in frame:
        if frame[column].dtype.kind == "c":
            raise InputError(
                f"column {column!r} holds complex numbers; convert them to real numbers, or leave "
                f"it out with --drop {column}"
            )
        try:
            frame[column].nunique()
        except TypeError:
            value_type = type(frame[column].dropna().iloc[0]).__name__
            raise InputError(
                f"column {column!r} holds values of type {value_type}; convert them to numbers or "
                f"strings, or leave it out with --drop {column}"
            ) from None


def _structure(
    frame: pd.DataFrame, target: str, groups: str | None, time: str | None, said: list[str]
) -> tuple[Array | None, Array | None]:
    """The groups and the times of the rows."""
    number_of = None if groups is None else take_groups(frame, groups, target)
    place = None
    if time is not None:
        typed = frame
        if time in frame and time != target:
            column = frame[time]
            found = column_type(time, column, column)
            if found.kind in ("number", "date"):
                typed = frame.assign(**{time: _in_time(column, found)})
        place = take_time(typed, time, target)
    for name, what in ((groups, "keeps groups together"), (time, "orders the folds")):
        if name is not None:
            said.append(f"{name} {what} and is not a feature.")
    return number_of, place


def _in_time(column: pd.Series, found: ColumnType) -> pd.Series:
    if found.kind == "date":
        return dates(column, found.day_first)
    return found.read("x", column)[0]["x"]


def _ordered(features: pd.DataFrame, types: dict[str, ColumnType]) -> pd.DataFrame:
    """The columns that may be times, as times and numbers."""
    return pd.DataFrame(
        {c: _in_time(features[c], t) for c, t in types.items() if t.kind in ("number", "date")}
    )


def _footer_rows(frame: pd.DataFrame, target: str) -> list[Any]:
    """The index of up to three last rows that begin like a total or a note."""
    found: list[Any] = []
    for label in reversed(frame.index[-3:].tolist()):
        row = frame.loc[label]
        texts = [(c, v) for c, v in row.items() if isinstance(v, str) and FOOTER.match(v)]
        # a category or a class of that name has other rows
        rare = [c for c, v in texts if (frame[c] == v).sum() == 1 and c != target]
        sparse_row = row.isna().mean() >= 0.5 or (texts and texts[0][0] == frame.columns[0])
        if not rare or not sparse_row:
            break
        found.append(label)
    return found[::-1]


def _types(
    features: pd.DataFrame, raw: pd.DataFrame, options: TableOptions, said: list[str]
) -> dict[str, ColumnType]:
    """The type of each column, and the sentences about those that are left out."""
    mark = options.mark
    if mark is None:  # texts such as 1,234 do not decide; other columns may
        marks = Counter(m for c in features if (m := decimal_mark(features[c])) is not None)
        mark = "," if marks[","] and not marks["."] else "."
    types: dict[str, ColumnType] = {}
    distinct = ~features.duplicated()  # copies of rows repeat their keys
    for name in map(str, features):
        column = features[name]
        found = column_type(name, column, raw[name], mark, fixed=options.mark is not None)
        if (
            found.kind == "number"
            and name not in options.keep
            and _is_key(name, column[distinct], found)
        ):
            found = ColumnType("key", remark="a different whole number in every row")
        elif found.kind == "name" and name in options.keep:
            found = ColumnType("category")
        types[name] = found
    left_out = {n: t for n, t in types.items() if t.kind in ("key", "name", "empty", "constant")}
    why = {
        "key": "looks like an index or identifier ({}); --keep {} keeps it",
        "name": "was left out: {} or identifiers; --keep {} keeps it",
        "empty": "was left out: it has {}",
        "constant": "was left out: it is {}",
    }
    for name, column_kind in left_out.items():
        text = why[column_kind.kind].format(column_kind.remark, name)
        if column_kind.kind == "key":
            text = f"was left out: it {text}"
        said.append(f"Column {name} {text}.")
    if len(left_out) == len(types):
        raise InputError("no column is left to learn from: " + " ".join(said[-len(left_out) :][:3]))
    return types


def _is_key(name: str, column: pd.Series, found: ColumnType) -> bool:
    """Whether a column of numbers counts rows or identifies them."""
    if column.isna().any() or len(column) < 10 or found.duration:
        return False
    if not column.map(lambda v: not isinstance(v, str) or v.isdigit()).all():
        return False  # amounts with a sign, a currency or decimals
    frame, lost = found.read(name, column)
    values = frame[name]
    if lost or bool((values != values.round()).any()) or values.nunique() < len(values):
        return False
    if UNNAMED.match(name) or KEY_NAME.search(name):
        return True
    counts_rows = values.max() - values.min() == len(values) - 1 and values.min() in (0, 1)
    return bool(counts_rows) and not TIME_NAME.search(name)


def _features(
    features: pd.DataFrame, types: dict[str, ColumnType], said: list[str]
) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    missing: Counter[str] = Counter()
    for name, found in types.items():
        part, lost = found.read(name, features[name])
        if lost:
            listed = ", ".join(f"{t!r}" if t != "infinite" else t for t, _ in lost.most_common(5))
            more = " ..." if len(lost) > 5 else ""
            said.append(
                f"{sum(lost.values()):,} values of {name} count as missing: {listed}{more}."
            )
        if found.kind not in ("text", "name", "key", "empty", "constant") and len(part.columns):
            missing[name] += int(part.iloc[:, 0].isna().sum())
        parts.append(part)
    by_kind: dict[str, list[str]] = {}
    for name, found in types.items():
        by_kind.setdefault(found.kind, []).append(name)
    for name in by_kind.get("date", []) + by_kind.get("time", []):
        said.append(f"{name} became {types[name].remark}.")
    for name, found in types.items():
        if found.kind == "number" and found.remark:
            said.append(f"{name}: {found.remark}.")
    if missing := +missing:
        where = _listed([f"{name} {count:,}" for name, count in missing.most_common(6)], 5)
        said.append(
            f"{missing.total():,} missing values ({where}): numbers are replaced by the "
            "median of the training rows, with a column that marks them; in categories, missing "
            "is a category of its own."
        )
    if "category" in by_kind:
        said.append(
            f"Categories ({_listed(by_kind['category'])}) became 0/1 columns, at most {LEVELS} "
            "each."
        )
    if "text" in by_kind:
        said.append(
            f"Texts ({_listed(by_kind['text'])}) became TF-IDF features: the {TEXT_FEATURES:,} "
            "most frequent words of the training rows."
        )
    return pd.concat(parts, axis=1)


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


def _test_set(
    data: Dataset,
    test: pd.DataFrame,
    known: list[str],
    types: dict[str, ColumnType],
    options: TableOptions,
    mark: str,
) -> tuple[pd.DataFrame, Array]:
    test = _with_text_names(test)
    needed = [*types, data.target]
    absent = [c for c in needed if c not in test.columns]
    if absent:
        raise InputError(
            f"the test table has no column {absent[0]!r}; it needs the columns of the data: "
            f"{_listed(known, 12)}"
        )
    check_distinct(list(test.columns))
    _check_hashable(test[needed])
    test = test[needed].apply(lambda c: without(clean(c), options.na)) if len(test) else test
    test = test[test[data.target].notna()].reset_index(drop=True)
    if test.empty:
        raise InputError(f"the test table has no rows with a value of {data.target!r}")
    notes: list[str] = []
    x = _features(test.drop(columns=data.target), types, notes)
    data.notes += [f"Test table: {n}" for n in notes if "count as missing" in n]
    if data.kind == "regression":
        y = read_values(test[data.target], data.target, mark)
        return x, y
    index = {canonical_name(c): i for i, c in enumerate(data.classes)}
    name_of = canonical_name if len(index) == len(data.classes) else str
    index = {name_of(c): i for i, c in enumerate(data.classes)}
    new = next((v for v in test[data.target] if name_of(v) not in index), None)
    if new is not None:
        raise InputError(
            f"the test table holds the class {new!r}, which no training row has; remove those rows"
        )
    return x, np.array([index[name_of(v)] for v in test[data.target]], np.int64)


def read_values(column: pd.Series, name: str, mark: str) -> Array:
    """The numbers of a regression target; :class:`thinned.InputError` where one is none."""
    values = numbers(column, mark)
    if not np.isfinite(values).all():
        bad = column[~np.isfinite(values)].iloc[0]
        raise InputError(
            f"{name!r} of the test table has to hold finite numbers, but holds {bad!r}; remove "
            "those rows"
        )
    return values.to_numpy(np.float64)


def _warn(data: Dataset) -> None:
    data.warnings += leaks(data)
    repeated = duplicates(data)
    if repeated:
        data.warnings.append(repeated)


def duplicates(data: Dataset) -> str | None:
    """A sentence about rows that occur more than once, or in training and in the test set."""
    hashes = row_hashes(data.x, data.y)
    _, counts = np.unique(hashes, return_counts=True)
    again = int(counts[counts > 1].sum())
    out = []
    if again:
        out.append(
            f"{again:,} of {len(hashes):,} rows are equal to another row (features and target), so "
            "copies of training rows are in test folds, and errors look too low; remove them if "
            "they are not independent measurements."
        )
    if data.extra is not None:
        common = int(np.isin(row_hashes(*data.extra), hashes).sum())
        if common:
            out.append(
                f"{common:,} of {len(data.extra[1]):,} rows of the separate test set are also in "
                "the data; remove them."
            )
    return " ".join(out) or None


def leaks(data: Dataset) -> list[str]:
    """Sentences about columns that give the target away, alone or by a linear combination."""
    if not isinstance(data.x, pd.DataFrame):
        return []
    y = _numeric_target(data)
    alone = [str(c) for c in data.x if c not in data.texts and determines(data.x[c], data.y, y)]
    out = [
        f"Column {c} alone determines {data.target} in all {int(data.x[c].notna().sum()):,} rows "
        f"where it has a value; if it is not known before {data.target} is, leave it out with "
        f"--drop {_source(data, c)}."
        for c in alone
    ]
    if y is not None and not alone:
        names = combination(data.x, y)
        if names:
            out.append(
                f"A linear combination of {_listed(names)} gives {data.target} exactly; if they "
                f"are not known before {data.target} is, leave one out with --drop "
                f"{_source(data, names[0])}."
            )
    return out


def _source(data: Dataset, feature: str) -> str:
    """The column of the table that a feature was made of."""
    names = [n for n, *_ in data.columns if feature == n or feature.startswith(f"{n} (")]
    return max(names, key=len, default=feature)


def _numeric_target(data: Dataset) -> Array | None:
    """The target as numbers, also where they were taken as classes; None for names."""
    if data.kind == "regression":
        return data.y
    try:
        return np.array([float(c) for c in data.classes])[data.y]
    except ValueError:
        return None


def determines(column: pd.Series, codes: Array, y: Array | None) -> bool:
    """Whether a column alone determines the target wherever it has a value.

    Each of its values occurs with one target only, and there are at most half as many values as
    rows; or it is a number that increases or decreases with the target, or is divided into the
    classes by thresholds.
    """
    present = column.notna().to_numpy()
    x, target = column[present], codes[present]
    n = len(x)
    if n < 20 or n < len(column) // 2 or len(np.unique(target)) < 2:
        return False
    groups = pd.DataFrame({"x": x.to_numpy(), "y": target}).groupby("x")["y"]
    single = bool((groups.nunique() == 1).all())
    if not single:
        return False
    if x.nunique() <= n // 2:
        return True
    if not pd.api.types.is_numeric_dtype(x):
        return False
    order = np.argsort(x.to_numpy(np.float64), kind="stable")
    if y is not None:
        steps = np.diff(y[present][order])
        if bool((steps >= 0).all() or (steps <= 0).all()):
            return True
    if target.dtype.kind == "f":
        return False
    changes = int((np.diff(target[order]) != 0).sum())
    return changes == len(np.unique(target)) - 1


def combination(x: pd.DataFrame, y: Array) -> list[str]:
    """The columns of numbers of which a linear combination equals the target, or none."""
    numeric = [c for c in x if pd.api.types.is_numeric_dtype(x[c]) and x[c].notna().all()]
    rows = np.linspace(0, len(y) - 1, min(len(y), SAMPLE)).astype(int)
    if not numeric or len(numeric) > COMBINED or len(rows) < 2 * len(numeric) + 10:
        return []
    a = x[numeric].to_numpy(np.float64)
    spread = a.std(0)
    usable = [i for i, s in enumerate(spread) if s > 0]
    a = (a - a.mean(0))[:, usable] / spread[usable]
    b = (y - y.mean()) / (y.std() or 1.0)

    def exact(columns: list[int], on: Array | slice) -> bool:
        fit = np.linalg.lstsq(a[rows][:, columns], b[rows], rcond=None)[0]
        return bool(np.abs(a[on][:, columns] @ fit - b[on]).max() < EXACT)

    chosen = list(range(len(usable)))
    if not chosen or not exact(chosen, slice(None)):
        return []
    sizes = np.abs(np.linalg.lstsq(a[rows], b[rows], rcond=None)[0])
    for i in np.argsort(sizes, kind="stable").tolist():  # leave out what is not needed
        fewer = [c for c in chosen if c != i]
        if fewer and exact(fewer, slice(None)):
            chosen = fewer
    return [str(numeric[usable[i]]) for i in chosen]
