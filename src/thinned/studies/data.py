"""Reading data: tables, arrays, folders of IDX files, OpenML, and handwritten digits."""

from __future__ import annotations

import gzip
import math
import struct
import warnings
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.model_selection import train_test_split

from .._errors import InputError, nearest
from .columns import LARGEST
from .dataset import Array, Dataset, Kind, Matrix, take_rows
from .reading import TABLE_ENDINGS, Reading, is_table, read_table
from .tables import TableOptions, duplicates, table
from .targets import canonical_name, read_target


def load(
    source: str | None,
    target: str | None = None,
    kind: Kind | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    groups: str | None = None,
    time: str | None = None,
    options: TableOptions | None = None,
    reading: Reading | None = None,
    test: str | pd.DataFrame | None = None,
) -> Dataset:
    """Read a dataset.

    Args:
        source: None (the handwritten digits of scikit-learn), the path of a table (text, Parquet,
            .xlsx, also in .gz or .zip), of an NPZ file or of a folder of IDX files, or
            "openml:NAME".
        target: The column to predict, for tables.
        kind: "classification" or "regression". None: decided from the target.
        limit: The largest number of rows to use, drawn by ``seed``, of each class in proportion.
            None: all.
        seed: The seed of that draw.
        groups: The column of a table with the groups of rows. None: no groups.
        time: The column of a table with the times of rows. None: no times.
        options: What is done with the columns of a table. None: the defaults.
        reading: How the text of a table is read. None: recognized from the content.
        test: A separate test set for a table: a path or a DataFrame. None: none.

    Returns:
        The dataset.

    Raises:
        InputError: Where the data cannot be read or cannot be used.
    """
    reading, structure = reading or Reading(), (groups, time)
    if source is None:
        _no_structure("the handwritten digits", *structure)
        _check_no_table("the handwritten digits", options, reading, test)
        _check_fixed_target("the handwritten digits", target, kind)
        data = _digits()
    elif source.startswith("openml:"):
        reading.check_unused("a data set of OpenML", ("na", "decimal"))
        data = _openml(
            source.removeprefix("openml:"), target, kind, options, _test_frame(test), *structure
        )
    else:
        path = Path(source)
        if not _exists(path):
            raise InputError(f"data {source!r} does not exist{_nearest_name(path)}")
        if path.is_dir():
            _no_structure("IDX files", *structure)
            _check_no_table("IDX files", options, reading, test)
            _check_fixed_target("IDX files", target, kind)
            data = _idx(path)
        elif path.suffix.lower() == ".npz":
            _no_structure("those of an NPZ file", *structure)
            _check_no_table("an NPZ file, with x_test and y_test", options, reading, test)
            _no_target("those of an NPZ file", target)
            data = _npz(path, kind)
        elif is_table(path.name):
            notes: list[str] = []
            frame = read_table(path, reading, notes)
            extra = _test_frame(test, reading)
            name = path.name.removesuffix("".join(path.suffixes[-2:])) or path.stem
            data = table(
                frame,
                target,
                kind,
                name,
                options,
                test=extra,
                groups=groups,
                time=time,
                notes=notes,
            )
        else:
            raise InputError(
                f"data {source!r} has an unknown ending, {_ending(path)!r}; use "
                f"{', '.join(TABLE_ENDINGS)}, each also as .gz or in a .zip, .npz, a folder of IDX "
                "files, or openml:NAME with --data"
            )
    return _limited(data, limit, seed)


def _ending(path: Path) -> str:
    inner = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else ""
    return inner + path.suffix


def _test_frame(
    test: str | pd.DataFrame | None, reading: Reading | None = None
) -> pd.DataFrame | None:
    if test is None or isinstance(test, pd.DataFrame):
        return test
    path = Path(test)
    if not _exists(path) or not is_table(path.name):
        raise InputError(
            f"--test {test!r} has to be the path of a table ({', '.join(TABLE_ENDINGS)})"
            f"{'' if _exists(path) else _nearest_name(path)}"
        )
    return read_table(path, reading or Reading(), [])


def _check_no_table(
    what: str, options: TableOptions | None, reading: Reading, test: object
) -> None:
    """Raise :class:`thinned.InputError` where an option for tables is set."""
    reading.check_unused(what)
    names = ["drop" if options and options.drop else "", "keep" if options and options.keep else ""]
    names.append("test" if test is not None else "")
    for name in filter(None, names):
        raise InputError(f"--{name} is for tables, but the data are {what}; leave out --{name}")


def from_frame(
    frame: pd.DataFrame,
    target: str | None,
    kind: Kind | None,
    *,
    limit: int | None = None,
    seed: int = 0,
    groups: str | None = None,
    time: str | None = None,
    options: TableOptions | None = None,
    test: str | pd.DataFrame | None = None,
) -> Dataset:
    """A DataFrame as a dataset; the arguments are those of :func:`load`."""
    extra = _test_frame(test)
    data = table(frame, target, kind, "the table", options, test=extra, groups=groups, time=time)
    return _limited(data, limit, seed)


def from_arrays(
    x: Matrix, y: Array, kind: Kind | None, *, limit: int | None = None, seed: int = 0
) -> Dataset:
    """Arrays as a dataset: ``x`` [n, features], [n, h, w] or [n, c, h, w], and ``y`` [n].

    ``x`` may be a sparse matrix of SciPy. The other arguments are those of :func:`load`.
    """
    notes: list[str] = []
    pixels, image = _sparse(x) if sparse.issparse(x) else _pixels(x, "x")
    target, kind, classes = _labels(y, kind, pixels.shape[0], notes)
    data = Dataset("the arrays", pixels, target, kind, classes=classes, image=image, notes=notes)
    return _limited(_warned(data), limit, seed)


def _warned(data: Dataset) -> Dataset:
    repeated = duplicates(data)
    return replace(data, warnings=[repeated]) if repeated else data


def _sparse(x: Any) -> tuple[Any, None]:
    if x.dtype.kind not in "fiub":
        raise InputError(f"x has to hold numbers, but its dtype is {x.dtype}")
    if x.ndim != 2 or not x.shape[0] or not x.shape[1]:
        raise InputError(f"x has to be [n, features] with rows in it, but its shape is {x.shape}")
    rows = sparse.csr_array(x, dtype=np.float64)
    rows.sum_duplicates()
    rows.sort_indices()
    if not np.isfinite(rows.data).all() or np.abs(rows.data).max(initial=0) > LARGEST:
        raise InputError(
            f"x holds NaN, infinite values or values above {LARGEST:g}; impute or rescale them"
        )
    return rows, None


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


def _openml(
    name: str,
    target: str | None,
    kind: Kind | None,
    options: TableOptions | None = None,
    test: pd.DataFrame | None = None,
    groups: str | None = None,
    time: str | None = None,
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
    return table(frame, wanted, kind, name, options, test=test, groups=groups, time=time)


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
    return _warned(data)


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
    index = {canonical_name(c): i for i, c in enumerate(data.classes)}
    # where "1" and "01" are two classes, classes are compared as strings
    name_of = canonical_name if len(index) == len(data.classes) else str
    index = {name_of(c): i for i, c in enumerate(data.classes)}
    new = next((v for v in y.tolist() if name_of(v) not in index), None)
    if new is not None:
        raise InputError(
            f"{names[1]} holds the class {new!r}, which no training row has; remove those rows"
        )
    return pixels, np.array([index[name_of(v)] for v in y.tolist()], np.int64)


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
    # bytes and float32 fit float32; the others are centered before they are rounded to it
    small = x.dtype.itemsize <= 2 or x.dtype == np.float32
    x = x.reshape(len(x), -1).astype(np.float32 if small else np.float64)
    if np.abs(x).max() > LARGEST:
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
    found = read_target(column, kind, "y", notes)
    if len(found.rows) < n:
        raise InputError(
            f"y holds {n - len(found.rows):,} empty or unknown values; remove those rows"
        )
    return found.y, found.kind, found.classes


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
    found = read_target(pd.Series(y), "classification", "label", [])
    name = folder.resolve().name
    data = Dataset(
        name, pixels, found.y, found.kind, classes=found.classes, image=image, target="label"
    )
    if test[0] and test[1]:
        data.extra = _extra(data, *_read_pair(test[0], test[1]), (test[0].name, test[1].name))
    return _warned(data)


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
    groups, time = (None if v is None else v[sampled] for v in (data.groups, data.time))
    return replace(
        data,
        x=take_rows(data.x, sampled),
        y=data.y[sampled],
        notes=notes,
        groups=groups,
        time=time,
    )
