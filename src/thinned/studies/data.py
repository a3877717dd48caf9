"""Reading data: tables, arrays, folders of IDX files, OpenML, and handwritten digits."""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import struct
import warnings
import zipfile
import zlib
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from .._errors import InputError, nearest
from .structure import looks_like_time, order_warning, take_groups, take_time

Array = NDArray[Any]
Kind = Literal["classification", "regression"]
MISSING = "(missing)"  # the category of missing values
LEVELS = 50  # at most so many categories of a column become columns of their own
LARGEST = 1e30  # the largest magnitude; training uses 32-bit floats
CLASSES = 30  # integers with at most so many distinct values are classes


@dataclass
class Dataset:
    """Rows and their targets, before any preprocessing.

    Args:
        name: The name of the data, for the report.
        x: A DataFrame with columns of any kind, or a float array [n, features].
        y: The targets [n]: int64 class numbers, or float64 values.
        kind: "classification" or "regression".
        classes: The names of the classes, by number.
        image: (channels, height, width) where each row is an image. None for tables.
        extra: A separate test set (x, y) that came with the data. None: none.
        notes: What was decided or left out, in sentences for the report.
        target: The name of the target.
        groups: For each row, the number of its group, which no two folds share. None: no groups.
        time: For each row, its place in time, by which folds are ordered. None: no order.
    """

    name: str
    x: pd.DataFrame | Array
    y: Array
    kind: Kind
    _: KW_ONLY
    classes: list[str] = field(default_factory=list)
    image: tuple[int, int, int] | None = None
    extra: tuple[Array, Array] | None = None
    notes: list[str] = field(default_factory=list)
    target: str = "y"
    groups: Array | None = None
    time: Array | None = None

    def __len__(self) -> int:
        return len(self.y)

    def digest(self) -> str:
        """A hash of the rows, by which a resumed study checks that its data are the same."""
        digest = hashlib.blake2b(digest_size=8)
        parts = [self.x, self.y, *(self.extra or ()), self.groups, self.time]
        for part in parts:
            if isinstance(part, pd.DataFrame):
                digest.update(repr(list(part.columns)).encode("utf-8", "backslashreplace"))
                part = pd.util.hash_pandas_object(part, index=False).to_numpy()
            digest.update(b"|")
            if part is not None:
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def load(
    source: str | None,
    target: str | None = None,
    kind: Kind | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    groups: str | None = None,
    time: str | None = None,
) -> Dataset:
    """Read a dataset.

    Args:
        source: None (the handwritten digits of scikit-learn), the path of a CSV, Parquet or NPZ
            file or of a folder of IDX files, or "openml:NAME".
        target: The column to predict, for tables.
        kind: "classification" or "regression". None: decided from the target.
        limit: The largest number of rows to use, drawn by ``seed``, of each class in proportion.
            None: all.
        seed: The seed of that draw.
        groups: The column of a table with the groups of rows. None: no groups.
        time: The column of a table with the times of rows. None: no times.

    Returns:
        The dataset.

    Raises:
        InputError: Where the data cannot be read or cannot be used.
    """
    structure = groups, time
    if source is None:
        _no_structure("the handwritten digits", *structure)
        _check_fixed_target("the handwritten digits", target, kind)
        data = _digits()
    elif source.startswith("openml:"):
        data = _openml(source.removeprefix("openml:"), target, kind, *structure)
    else:
        path = Path(source)
        if not _exists(path):
            raise InputError(f"data {source!r} does not exist{_nearest_name(path)}")
        if path.is_dir():
            _no_structure("IDX files", *structure)
            _check_fixed_target("IDX files", target, kind)
            data = _idx(path)
        elif path.suffix.lower() == ".npz":
            _no_structure("those of an NPZ file", *structure)
            _no_target("those of an NPZ file", target)
            data = _npz(path, kind)
        elif path.suffix.lower() in (
            ".csv",
            ".tsv",
            ".txt",
            ".parquet",
            ".pq",
        ) or path.name.endswith(".csv.gz"):
            data = _table(
                _read_table(path), target, kind, path.stem.removesuffix(".csv"), *structure
            )
        else:
            raise InputError(
                f"data {source!r} has an unknown ending; use .csv, .parquet, .npz, a folder of IDX "
                "files, or openml:NAME"
            )
    return _limited(data, limit, seed)


def from_frame(
    frame: pd.DataFrame,
    target: str | None,
    kind: Kind | None,
    *,
    limit: int | None = None,
    seed: int = 0,
    groups: str | None = None,
    time: str | None = None,
) -> Dataset:
    """A DataFrame as a dataset; the arguments are those of :func:`load`."""
    return _limited(_table(frame.copy(), target, kind, "the table", groups, time), limit, seed)


def from_arrays(
    x: Array, y: Array, kind: Kind | None, *, limit: int | None = None, seed: int = 0
) -> Dataset:
    """Arrays as a dataset: ``x`` [n, features], [n, h, w] or [n, c, h, w], and ``y`` [n].

    The other arguments are those of :func:`load`.
    """
    notes: list[str] = []
    pixels, image = _pixels(x, "x")
    target, kind, classes = _labels(y, kind, len(pixels), notes)
    data = Dataset("the arrays", pixels, target, kind, classes=classes, image=image, notes=notes)
    return _limited(data, limit, seed)


def _no_structure(what: str, groups: str | None, time: str | None) -> None:
    for option, column in (("--groups", groups), ("--time", time)):
        if column is not None:
            raise InputError(
                f"{option} is for tables, but the data are {what}; leave out {option} {column}"
            )


def _no_target(what: str, target: str | None) -> None:
    if target is not None:
        raise InputError(
            f"--target is for tables, but the data are {what}; leave out --target {target}"
        )


def _check_fixed_target(what: str, target: str | None, kind: Kind | None) -> None:
    _no_target(what, target)
    if kind == "regression":
        raise InputError(
            f"--task regression needs a numeric target, but {what} have classes; use a table or an "
            "NPZ file"
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null in it
        return False


def _limited(data: Dataset, limit: int | None, seed: int) -> Dataset:
    return data if limit is None or limit >= len(data) else _sample(data, limit, seed)


def _nearest_name(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    return "; " + nearest(path.name, names) if names and len(names) < 1000 else ""


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        "digits",
        bunch.data.astype(np.float32),
        bunch.target.astype(np.int64),
        "classification",
        classes=[str(c) for c in range(10)],
        image=(1, 8, 8),
    )


def _read_table(path: Path) -> pd.DataFrame:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        guessed = path.suffix.lower() in (".tsv", ".txt")
        options: Any = {"sep": None if guessed else ",", "engine": "python" if guessed else "c"}
        # read_csv renames duplicate column names; read as a row of data, they remain visible
        names = (
            pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
            .iloc[0]
            .tolist()
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, index_col=False, **options)
    except pd.errors.ParserWarning:
        raise InputError(
            f"{path} cannot be read as a table: its rows are longer than its header; name every "
            "column"
        ) from None
    except (ValueError, OSError, EOFError, OverflowError, csv.Error, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as a table: {str(error).splitlines()[0]}"
        ) from None
    _check_distinct([name for name in names if name])
    return frame


def _check_distinct(names: list[str]) -> None:
    duplicate = next((n for n in names if names.count(n) > 1), None)
    if duplicate is not None:
        raise InputError(
            f"column names have to be distinct, but {duplicate!r} occurs more than once; rename one"
        )


def _table(
    frame: pd.DataFrame,
    target: str | None,
    kind: Kind | None,
    name: str,
    groups: str | None = None,
    time: str | None = None,
) -> Dataset:
    frame.columns = [str(c) for c in frame.columns]
    known = list(frame.columns)
    if target is None:
        listed = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
        raise InputError(
            f"a table needs the column to predict: --target NAME; its columns are {listed}"
        )
    if target not in known:
        raise InputError(f"target {target!r} is not a column; {nearest(target, known)}")
    _check_distinct(known)
    for column in known:
        try:
            frame[column].nunique()
        except TypeError:
            value_type = type(frame[column].dropna().iloc[0]).__name__
            raise InputError(
                f"column {column!r} holds values of type {value_type}; convert them to numbers or "
                "strings, or remove the column"
            ) from None
    notes = []
    unlabeled = int(frame[target].isna().sum())
    if unlabeled:
        notes.append(f"{unlabeled:,} rows without a value of {target} were left out.")
        frame = frame[frame[target].notna()]
    if frame.empty:
        raise InputError(f"the table has no rows with a value of {target!r}")
    y, kind, classes = _target(frame[target], kind, target, notes)
    group_numbers = None if groups is None else take_groups(frame, groups, target)
    times = None if time is None else take_time(frame, time, target)
    structure: list[str] = [c for c in (groups, time) if c is not None]
    for name_of, what in ((groups, "keeps groups together"), (time, "orders the folds")):
        if name_of is not None:
            notes.append(f"{name_of} {what} and is not a feature.")
    in_order = [] if time is not None else looks_like_time(frame.drop(columns=target))
    if in_order:
        notes.append(order_warning(in_order))
    return Dataset(
        name,
        _features(frame.drop(columns=[target, *structure]), notes),
        y,
        kind,
        classes=classes,
        notes=notes,
        target=target,
        groups=group_numbers,
        time=times,
    )


def _target(
    column: pd.Series[Any], kind: Kind | None, name: str, notes: list[str]
) -> tuple[Array, Kind, list[str]]:
    if column.nunique() < 2:
        raise InputError(
            f"target {name!r} is constant ({_repr_of(column.iloc[0])}); there is nothing to predict"
        )
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if kind is None:
        is_integer = numeric and bool((column == column.round()).all())
        kind = (
            "regression"
            if numeric and not (is_integer and column.nunique() <= CLASSES)
            else "classification"
        )
        what = f"{column.nunique()} distinct values" if kind == "classification" else "numbers"
        notes.append(f"{name} holds {what}, so this is {kind}; --task overrides that.")
    if kind == "regression":
        if not numeric:
            text = next(
                (v for v in column if pd.isna(pd.to_numeric(v, errors="coerce"))), column.iloc[0]
            )
            raise InputError(
                f"regression needs a target of numbers, but {name!r} holds {_repr_of(text)}"
            )
        y = column.to_numpy(np.float64)
        if not np.isfinite(y).all():
            raise InputError(f"target {name!r} holds infinite values; remove those rows")
        with np.errstate(over="ignore", invalid="ignore"):
            spread = float(y.std())
        if not 1 / LARGEST < spread < LARGEST:  # false for NaN too
            raise InputError(
                f"target {name!r} has a standard deviation of {spread:g}, too far from 1 for "
                "32-bit floats; rescale it"
            )
        return y, kind, []
    if column.nunique() > max(CLASSES, len(column) // 5):
        raise InputError(
            f"target {name!r} has {column.nunique()} classes in {len(column)} rows; for numbers "
            "use --task regression"
        )
    codes, levels = pd.factorize(column, sort=True)
    return codes.astype(np.int64), kind, [str(v) for v in levels]


def _repr_of(value: object) -> str:
    """The repr of a value, without the name of a NumPy type."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def _features(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    if frame.shape[1] == 0:
        raise InputError("the table has no column besides the target")
    empty = [c for c in frame if frame[c].isna().all()]
    if empty:
        raise InputError(f"column {empty[0]!r} has no values at all; remove it")
    columns: dict[str, pd.Series[Any]] = {}
    missing, categorical = 0, []
    for name in map(str, frame):
        column = frame[name]
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
            number = column.astype(np.float64)
            infinite = int(np.isinf(number).sum())
            if infinite:
                notes.append(f"{infinite:,} infinite values in {name} count as missing.")
            columns[name] = number.replace([np.inf, -np.inf], np.nan)
            if columns[name].abs().max() > LARGEST:
                raise InputError(
                    f"column {name!r} holds {columns[name].abs().max():g}, too large for 32-bit "
                    "floats; rescale it"
                )
            missing += int(columns[name].isna().sum())
        elif column.nunique() > max(LEVELS, len(column) // 2):
            notes.append(
                f"Column {name} was left out: its {column.nunique():,} distinct strings look like "
                "names or free text."
            )
        else:
            categorical.append(name)
            missing += int(column.isna().sum())
            columns[name] = column.astype(object).where(column.notna(), MISSING).map(str)
    if not columns:
        raise InputError(
            "no column is left to learn from: all hold strings with mostly distinct values; "
            "convert them to numbers or categories"
        )
    if missing:
        notes.append(
            f"{missing:,} missing values: numbers are replaced by the median of the training rows, "
            "with a column that marks them; in categories, missing is a category of its own."
        )
    if categorical:
        listed = ", ".join(categorical[:8]) + (" ..." if len(categorical) > 8 else "")
        notes.append(f"Categories ({listed}) became 0/1 columns, at most {LEVELS} each.")
    return pd.DataFrame(columns)


def _openml(
    name: str,
    target: str | None,
    kind: Kind | None,
    groups: str | None,
    time: str | None,
) -> Dataset:
    from sklearn.datasets import fetch_openml

    if not name:
        raise InputError("openml: needs a name or a number, such as openml:credit-g")
    query: dict[str, Any] = (
        {"data_id": int(name)} if name.isdigit() else {"name": name, "version": "active"}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning for each attempt
            bunch = fetch_openml(**query, as_frame=True, parser="auto")
    except Exception as error:  # noqa: BLE001  network errors are of many types
        raise InputError(
            f"openml:{name} could not be fetched ({type(error).__name__}: {error}); check the name "
            "and the connection"
        ) from None
    frame = bunch.frame
    wanted = target or (bunch.target_names[0] if bunch.target_names else None)
    return _table(frame, wanted, kind, name, groups, time)


def _npz(path: Path, kind: Kind | None) -> Dataset:
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            arrays = None if isinstance(file, np.ndarray) else {k: file[k] for k in file.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path} holds pickled objects, which could run code when read; save numeric "
                "arrays: np.savez(path, x=x, y=y)"
            ) from None
        raise InputError(f"{path} cannot be read as NPZ: {error}") from None
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        MemoryError,
    ) as error:
        raise InputError(f"{path} cannot be read as NPZ: {error}") from None
    if arrays is None:
        raise InputError(
            f"{path} cannot be read as NPZ: it holds one array, without names; save both: "
            "np.savez(path, x=x, y=y)"
        )
    for name in ("x", "y"):
        if name not in arrays:
            raise InputError(
                f"{path} needs arrays named 'x' and 'y', but has "
                f"{', '.join(sorted(arrays)) or 'none'}"
            )
    notes: list[str] = []
    x, image = _pixels(arrays["x"], "x")
    y, kind, classes = _labels(arrays["y"], kind, len(x), notes)
    data = Dataset(path.stem, x, y, kind, classes=classes, image=image, notes=notes)
    if "x_test" in arrays and "y_test" in arrays:
        data.extra = _extra(data, arrays["x_test"], arrays["y_test"], ("x_test", "y_test"))
    elif "x_test" in arrays or "y_test" in arrays:
        notes.append(
            "The test set was left out: it needs x_test and y_test, and one of them is missing."
        )
    return data


def _extra(data: Dataset, x: Array, y: Array, names: tuple[str, str]) -> tuple[Array, Array]:
    """The separate test set of ``data``.

    Raises :class:`thinned.InputError` where its shape or classes are not those of ``data``.
    """
    pixels, image = _pixels(x, names[0])
    if image != data.image or pixels.shape[1] != data.x.shape[1]:
        expected = data.image or data.x.shape[1:]
        raise InputError(
            f"each row of {names[0]} has to have the shape of the training rows, {expected}, but "
            f"has {image or pixels.shape[1:]}"
        )
    y = _as_column(y, len(pixels), names[1])
    if data.kind == "regression":
        if y.dtype.kind not in "fiub" or not np.isfinite(y).all():
            raise InputError(
                f"{names[1]} has to hold finite numbers, like the training target; remove the "
                "other rows"
            )
        return pixels, y.astype(np.float64)
    index = {_class_name(c): i for i, c in enumerate(data.classes)}
    # where "1" and "01" are two classes, classes are compared as strings
    name_of = _class_name if len(index) == len(data.classes) else str
    index = {name_of(c): i for i, c in enumerate(data.classes)}
    new = next((v for v in y.tolist() if name_of(v) not in index), None)
    if new is not None:
        raise InputError(
            f"{names[1]} holds the class {new!r}, which no training row has; remove those rows"
        )
    return pixels, np.array([index[name_of(v)] for v in y.tolist()], np.int64)


def _class_name(value: object) -> str:
    """The name of a class by its value: 1, 1.0 and "1" are the same class."""
    text = str(value)
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text


def _pixels(x: Array, name: str) -> tuple[Array, tuple[int, int, int] | None]:
    if x.dtype.kind not in "fiub":
        raise InputError(f"{name} has to hold numbers, but its dtype is {x.dtype}")
    if x.ndim not in (2, 3, 4) or not x.size:
        raise InputError(
            f"{name} has to be [n, features], [n, h, w] or [n, c, h, w] with rows in it, but its "
            f"shape is {x.shape}"
        )
    image: tuple[int, int, int] | None = None
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        x = np.moveaxis(x, 3, 1)  # channels last
    if x.ndim == 4:
        image = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    with np.errstate(over="ignore"):
        x = x.reshape(len(x), -1).astype(np.float32)
    if np.abs(x).max() > LARGEST:  # some may have become infinite in float32
        raise InputError(
            f"{name} holds infinite values or values above {LARGEST:g}, which are too large; "
            "rescale it"
        )
    if not np.isfinite(x).all():
        raise InputError(
            f"{name} holds NaN or infinite values; impute them, or use a CSV file, where missing "
            "values are imputed"
        )
    return x, image


def _labels(y: Array, kind: Kind | None, n: int, notes: list[str]) -> tuple[Array, Kind, list[str]]:
    column = pd.Series(_as_column(y, n, "y"))
    missing = int(column.isna().sum())
    if missing:
        raise InputError(f"y holds {missing:,} missing values; remove those rows")
    return _target(column, kind, "y", notes)


def _as_column(y: Array, n: int, name: str) -> Array:
    """``y`` [n] or [n, 1] as [n]."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != n:
        raise InputError(
            f"{name} has to hold one value for each of the {n} rows, but its shape is {y.shape}"
        )
    if y.dtype.kind not in "fiubOSU":
        raise InputError(f"{name} has to hold numbers or strings, but its dtype is {y.dtype}")
    return y


def _idx(folder: Path) -> Dataset:
    def find(part: str, what: str) -> Path | None:
        return next(
            (
                p
                for p in sorted(folder.iterdir())
                if p.name.startswith(part) and f"{what}-idx" in p.name.replace(".idx", "-idx")
            ),
            None,
        )

    images, labels = find("train", "images"), find("train", "labels")
    if not images or not labels:
        have = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
        raise InputError(
            f"folder {folder} needs train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz), "
            f"but has {have}"
        )
    x, y = _read_pair(images, labels)
    test = (
        find("t10k", "images") or find("test", "images"),
        find("t10k", "labels") or find("test", "labels"),
    )
    pixels, image = _pixels(x, images.name)
    codes, kind, classes = _target(pd.Series(y), "classification", "label", [])
    name = folder.resolve().name
    data = Dataset(name, pixels, codes, kind, classes=classes, image=image, target="label")
    if test[0] and test[1]:
        data.extra = _extra(data, *_read_pair(test[0], test[1]), (test[0].name, test[1].name))
    return data


def _read_pair(images: Path, labels: Path) -> tuple[Array, Array]:
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise InputError(
            f"{images.name} and {labels.name} have to be [n, h, w] and [n], but are {x.shape} and "
            f"{y.shape}"
        )
    return x, y


def read_idx(path: Path) -> Array:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Raises :class:`thinned.InputError` where it is damaged.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if len(raw) < 8 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 4:
        raise InputError(
            f"{path} is not an IDX file of unsigned bytes (it should begin with 00 00 08)"
        )
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if not shape or len(raw) - start != math.prod(shape):
        raise InputError(
            f"{path} is damaged: its header says {' x '.join(map(str, shape))} bytes, but "
            f"{len(raw) - start:,} follow"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _sample(data: Dataset, limit: int, seed: int) -> Dataset:
    stratify = (
        data.y
        if data.kind == "classification"
        and np.bincount(data.y).min() > 1
        and len(data.classes) <= min(limit, len(data) - limit)  # both parts get every class
        else None
    )
    sampled, _ = train_test_split(
        np.arange(len(data)), train_size=limit, random_state=seed, stratify=stratify
    )
    sampled = np.sort(sampled)
    notes = [
        *data.notes,
        f"{limit:,} of {len(data):,} rows were used (--rows), drawn at random by the seed.",
    ]
    x = (
        data.x.iloc[sampled].reset_index(drop=True)
        if isinstance(data.x, pd.DataFrame)
        else data.x[sampled]
    )
    groups, time = (None if v is None else v[sampled] for v in (data.groups, data.time))
    return replace(data, x=x, y=data.y[sampled], notes=notes, groups=groups, time=time)
