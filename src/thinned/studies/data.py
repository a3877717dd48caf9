"""Data as users have it: tables, arrays, folders of IDX files, OpenML, and an embedded default."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .._errors import InputError, nearest
from ..train import Split, Task, rows

Array = NDArray[Any]
Kind = Literal["classification", "regression"]
MISSING = "(missing)"  # the level of a category that was not given
LEVELS = 50  # categories of a column that get a column of their own
CLASSES = 30  # integers with at most so many values are classes


@dataclass
class Dataset:
    """Rows and a target, before any preprocessing.

    ``x``: a DataFrame (mixed columns) or a float array [n, features]. ``y``: class numbers or float targets.
    ``image``: (channels, height, width) where a row is a picture. ``extra``: a test set that came with the data.
    ``notes``: what was decided or left out, in sentences for the report.
    """

    name: str
    x: Any
    y: Array
    kind: Kind
    classes: list[str] = field(default_factory=list)
    image: tuple[int, int, int] | None = None
    extra: tuple[Any, Array] | None = None
    notes: list[str] = field(default_factory=list)
    target: str = "y"

    def __len__(self) -> int:
        return len(self.y)

    def digest(self) -> str:
        """A hash of the rows, to tell whether a study that is resumed still sees the same data."""
        raw = self.x if isinstance(self.x, np.ndarray) else pd.util.hash_pandas_object(self.x, index=False).to_numpy()
        return hashlib.blake2b(np.ascontiguousarray(raw).tobytes() + self.y.tobytes(), digest_size=8).hexdigest()


def load(
    source: str | None,
    target: str | None = None,
    kind: Kind | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Read ``source``: None (scikit-learn's digits), a CSV, Parquet or NPZ file, an IDX folder, or ``openml:NAME``.

    ``target``: the column to predict. ``kind``: forces the task. ``limit``: use at most so many rows, drawn by
    ``seed`` (classes in proportion). Raises :class:`thinned.InputError` for whatever is wrong, before any training.
    """
    if source is None:
        data = _digits()
    elif source.startswith("openml:"):
        data = _openml(source.removeprefix("openml:"), target, kind)
    else:
        path = Path(source)
        if not path.exists():
            raise InputError(f"data {source!r} does not exist{_beside(path)}")
        if path.is_dir():
            data = _idx(path)
        elif path.suffix.lower() == ".npz":
            data = _npz(path, kind)
        elif path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet", ".pq") or path.name.endswith(".csv.gz"):
            data = _table(_read_table(path), target, kind, path.stem.removesuffix(".csv"))
        else:
            raise InputError(
                f"data {source!r} has an unknown ending; use .csv, .parquet, .npz, a folder of IDX files, or openml:NAME"
            )
    return _limited(data, limit, seed)


def from_frame(frame: pd.DataFrame, target: str | None, kind: Kind | None, limit: int | None = None, seed: int = 0) -> Dataset:
    """A DataFrame as a dataset; see :func:`load`."""
    return _limited(_table(frame.copy(), target, kind, "the table"), limit, seed)


def from_arrays(x: Array, y: Array, kind: Kind | None, limit: int | None = None, seed: int = 0) -> Dataset:
    """Arrays as a dataset: x [n, features], [n, h, w] or [n, c, h, w], y [n]; see :func:`load`."""
    notes: list[str] = []
    pixels, image = _pixels(x, "x")
    target, kind, classes = _labels(y, kind, len(pixels), notes)
    return _limited(Dataset("the arrays", pixels, target, kind, classes, image, notes=notes), limit, seed)


def _limited(data: Dataset, limit: int | None, seed: int) -> Dataset:
    return data if limit is None or limit >= len(data) else _sample(data, limit, seed)


def _beside(path: Path) -> str:
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
        [str(c) for c in range(10)],
        (1, 8, 8),
    )


# --- Tables --------------------------------------------------------------------------------------------------------


def _read_table(path: Path) -> pd.DataFrame:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        return pd.read_csv(
            path,
            sep=None if path.suffix.lower() in (".tsv", ".txt") else ",",
            engine="python" if path.suffix.lower() in (".tsv", ".txt") else "c",
        )
    except (ValueError, OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from None


def _table(frame: pd.DataFrame, target: str | None, kind: Kind | None, name: str) -> Dataset:
    frame.columns = [str(c) for c in frame.columns]
    known = list(frame.columns)
    if target is None:
        some = ", ".join(known[:12]) + (" ..." if len(known) > 12 else "")
        raise InputError(f"a table needs the column to predict: --target NAME; its columns are {some}")
    if target not in known:
        raise InputError(f"target {target!r} is not a column; {nearest(target, known)}")
    if len(set(known)) < len(known):
        raise InputError(
            f"column names have to be distinct, but {next(c for c in known if known.count(c) > 1)!r} occurs more than once"
        )
    notes = []
    unlabelled = int(frame[target].isna().sum())
    if unlabelled:
        notes.append(f"{unlabelled:,} rows without a value of {target} were left out.")
        frame = frame[frame[target].notna()]
    if frame.empty:
        raise InputError(f"the table has no rows with a value of {target!r}")
    y, kind, classes = _target(frame[target], kind, target, notes)
    return Dataset(name, _features(frame.drop(columns=target), notes), y, kind, classes, notes=notes, target=target)


def _target(column: pd.Series[Any], kind: Kind | None, name: str, notes: list[str]) -> tuple[Array, Kind, list[str]]:
    if column.nunique() < 2:
        raise InputError(f"target {name!r} is constant ({column.iloc[0]!r}); there is nothing to predict")
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if kind is None:
        whole = numeric and bool((column == column.round()).all())
        kind = "regression" if numeric and not (whole and column.nunique() <= CLASSES) else "classification"
        what = f"{column.nunique()} distinct values" if kind == "classification" else "numbers"
        notes.append(f"{name} holds {what}, so this is {kind}; --task says otherwise.")
    if kind == "regression":
        if not numeric:
            text = next((v for v in column if pd.isna(pd.to_numeric(v, errors="coerce"))), column.iloc[0])
            raise InputError(f"regression needs a target of numbers, but {name!r} holds {text!r}")
        y = column.to_numpy(np.float64)
        if not np.isfinite(y).all():
            raise InputError(f"target {name!r} holds infinite values; remove those rows")
        return y, kind, []
    if column.nunique() > max(CLASSES, len(column) // 5):
        raise InputError(
            f"target {name!r} has {column.nunique()} classes in {len(column)} rows; for numbers use --task regression"
        )
    codes, levels = pd.factorize(column, sort=True)
    return codes.astype(np.int64), kind, [str(v) for v in levels]


def _features(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    if frame.shape[1] == 0:
        raise InputError("the table has no column besides the target")
    empty = [c for c in frame if frame[c].isna().all()]
    if empty:
        raise InputError(f"column {empty[0]!r} has no values at all; remove it")
    keep: dict[str, Any] = {}
    missing, categorical = 0, []
    for name in map(str, frame):
        column = frame[name]
        if pd.api.types.is_bool_dtype(column) or pd.api.types.is_numeric_dtype(column):
            number = column.astype(np.float64)
            infinite = int(np.isinf(number).sum())
            if infinite:
                notes.append(f"{infinite:,} infinite values in {name} count as missing.")
            keep[name] = number.replace([np.inf, -np.inf], np.nan)
            missing += int(keep[name].isna().sum())
        elif column.nunique() > max(LEVELS, len(column) // 2):
            notes.append(f"Column {name} was left out: {column.nunique():,} distinct texts look like names or free text.")
        else:
            categorical.append(name)
            missing += int(column.isna().sum())
            keep[name] = column.astype(object).where(column.notna(), MISSING).map(str)
    if not keep:
        raise InputError(
            "no column is left to learn from: all are texts with mostly distinct values; turn them into numbers or categories"
        )
    if missing:
        notes.append(
            f"{missing:,} missing values: a number takes its column's median on training rows (with a column that says so), "
            "a category becomes a level of its own."
        )
    if categorical:
        some = ", ".join(categorical[:8]) + (" ..." if len(categorical) > 8 else "")
        notes.append(f"Categories ({some}) became 0/1 columns, at most {LEVELS} each.")
    return pd.DataFrame(keep)


def _openml(name: str, target: str | None, kind: Kind | None) -> Dataset:
    from sklearn.datasets import fetch_openml

    if not name:
        raise InputError("openml: needs a name or a number, such as openml:credit-g")
    which: dict[str, Any] = {"data_id": int(name)} if name.isdigit() else {"name": name, "version": "active"}
    try:
        bunch = fetch_openml(**which, as_frame=True, parser="auto")
    except Exception as error:  # noqa: BLE001  a network library raises many kinds
        raise InputError(f"openml:{name} could not be fetched ({type(error).__name__}: {error})") from None
    frame = bunch.frame
    wanted = target or (bunch.target_names[0] if bunch.target_names else None)
    return _table(frame, wanted, kind, name)


# --- Arrays and images ---------------------------------------------------------------------------------------------


def _npz(path: Path, kind: Kind | None) -> Dataset:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path} holds pickled objects, which could run code when read; save plain arrays: np.savez(path, x=x, y=y)"
            ) from None
        raise InputError(f"{path} cannot be read as NPZ: {error}") from None
    except (OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: one array, not an archive
        raise InputError(f"{path} cannot be read as NPZ: {error}") from None
    for name in ("x", "y"):
        if name not in arrays:
            raise InputError(f"{path} needs arrays named 'x' and 'y', but has {', '.join(sorted(arrays)) or 'none'}")
    notes: list[str] = []
    x, image = _pixels(arrays["x"], "x")
    y, kind, classes = _labels(arrays["y"], kind, len(x), notes)
    extra = None
    if "x_test" in arrays and "y_test" in arrays:
        ex, _ = _pixels(arrays["x_test"], "x_test")
        ey = arrays["y_test"]
        index = {c: i for i, c in enumerate(classes)}
        extra = ex, (np.array([index[str(v)] for v in ey]) if kind == "classification" else ey.astype(np.float64))
    return Dataset(path.stem, x, y, kind, classes, image, extra, notes)


def _pixels(x: Array, name: str) -> tuple[Array, tuple[int, int, int] | None]:
    if x.dtype.kind not in "fiub":
        raise InputError(f"{name} has to hold numbers, but its dtype is {x.dtype}")
    if x.ndim not in (2, 3, 4) or not x.size:
        raise InputError(
            f"{name} has to be [n, features], [n, h, w] or [n, c, h, w] with rows in it, but its shape is {x.shape}"
        )
    image: tuple[int, int, int] | None = None
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        x = np.moveaxis(x, 3, 1)  # channels last
    if x.ndim == 4:
        image = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    x = x.reshape(len(x), -1).astype(np.float32)
    if not np.isfinite(x).all():
        raise InputError(f"{name} holds NaN or infinite values; impute them, or give a CSV, whose missing values are handled")
    return x, image


def _labels(y: Array, kind: Kind | None, n: int, notes: list[str]) -> tuple[Array, Kind, list[str]]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != n:
        raise InputError(f"y has to hold one value for each of the {n} rows, but its shape is {y.shape}")
    return _target(pd.Series(y), kind, "y", notes)


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
        raise InputError(f"folder {folder} needs train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz), but has {have}")
    x, y = _pair(images, labels)
    test = find("t10k", "images") or find("test", "images"), find("t10k", "labels") or find("test", "labels")
    extra = None
    if test[0] and test[1]:
        ex, ey = _pair(test[0], test[1])
        extra = ex.reshape(len(ex), -1).astype(np.float32), ey.astype(np.int64)
    notes: list[str] = []
    codes, kind, classes = _target(pd.Series(y), "classification", "label", notes)
    return Dataset(
        folder.resolve().name,
        x.reshape(len(x), -1).astype(np.float32),
        codes,
        kind,
        classes,
        (1, *x.shape[1:]),
        extra,
        notes,
        "label",
    )


def _pair(images: Path, labels: Path) -> tuple[Array, Array]:
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise InputError(f"{images.name} and {labels.name} have to be [n, h, w] and [n], but are {x.shape} and {y.shape}")
    return x, y


def read_idx(path: Path) -> Array:
    """One IDX file of unsigned bytes, gzipped or not. Raises :class:`thinned.InputError` where it is damaged."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if len(raw) < 8 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 4:
        raise InputError(f"{path} is not an IDX file of unsigned bytes (it should begin with 00 00 08)")
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if not shape or len(raw) - start != int(np.prod(shape, dtype=np.uint64)):
        raise InputError(
            f"{path} is damaged: its header says {' x '.join(map(str, shape))} bytes, but {len(raw) - start:,} follow"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _sample(data: Dataset, limit: int, seed: int) -> Dataset:
    stratify = (
        data.y if data.kind == "classification" and np.bincount(data.y).min() > 1 and limit >= len(data.classes) else None
    )
    some, _ = train_test_split(np.arange(len(data)), train_size=limit, random_state=seed, stratify=stratify)
    some = np.sort(some)
    notes = [*data.notes, f"{limit:,} of {len(data):,} rows were used (--rows), drawn at random by the seed."]
    x = data.x.iloc[some].reset_index(drop=True) if isinstance(data.x, pd.DataFrame) else data.x[some]
    return Dataset(data.name, x, data.y[some], data.kind, data.classes, data.image, data.extra, notes, data.target)


# --- Folds ---------------------------------------------------------------------------------------------------------


def check_folds(data: Dataset, folds: int) -> None:
    """Raise unless every fold can have rows of every class, and enough of them."""
    if len(data) < 10 * folds:
        raise InputError(
            f"{folds} folds need at least {10 * folds} rows, but there are {len(data)}; use fewer folds or more rows"
        )
    if data.kind == "classification":
        counts = np.bincount(data.y, minlength=len(data.classes))
        least = int(counts.argmin())
        if counts[least] < max(folds, 3):
            raise InputError(
                f"class {data.classes[least]!r} has {counts[least]} rows, fewer than {max(folds, 3)} for {folds} folds; "
                "remove or merge it, or use fewer --folds"
            )


def splits(data: Dataset, folds: int, repeats: int, seed: int) -> list[Split]:
    """Outer folds, ``repeats`` times over; in each a fifth of the training rows is the inner validation set.

    Whatever is learnt from columns (medians, means, categories) is learnt on the fold's training rows alone.
    """
    check_folds(data, folds)
    out = []
    for repeat in range(repeats):
        kind = StratifiedKFold if data.kind == "classification" else KFold
        cut = kind(folds, shuffle=True, random_state=seed + 1000 * repeat)
        for fold, (outer, test) in enumerate(cut.split(np.zeros(len(data)), data.y)):
            strata = data.y[outer] if data.kind == "classification" else None
            train, val = train_test_split(outer, test_size=0.2, random_state=seed + 1000 * repeat + fold, stratify=strata)
            out.append(_split(data, train, val, test))
    return out


def _split(data: Dataset, train: Array, val: Array, test: Array) -> Split:
    fit, centre, spread = _preprocessor(data, train), 0.0, 1.0
    if data.kind == "regression":
        centre, spread = float(data.y[train].mean()), float(data.y[train].std()) or 1.0

    def part(x: Any, y: Array, ids: Array) -> Any:
        return rows(fit(x), (y - centre) / spread if data.kind == "regression" else y, ids)

    def take(index: Array) -> Any:
        x = data.x.iloc[index] if isinstance(data.x, pd.DataFrame) else data.x[index]
        return part(x, data.y[index], index)

    extra = None if data.extra is None else part(*data.extra, len(data) + np.arange(len(data.extra[1])))
    outputs = len(data.classes) if data.kind == "classification" else 1
    return Split(Task(data.kind, outputs, spread), take(train), take(val), take(test), extra, data.image)


def _preprocessor(data: Dataset, train: Array) -> Any:
    """A function from raw rows to a float array, learnt on the training rows."""
    if data.image is not None:  # one mean and deviation for all pixels, so that pictures can be moved
        pixels = data.x[train]
        mean, std = float(pixels.mean()), float(pixels.std()) or 1.0
        return lambda x: (x - mean) / std
    if not isinstance(data.x, pd.DataFrame):
        scaler = StandardScaler().fit(data.x[train])
        return scaler.transform
    return table_pipeline(data.x).fit(data.x.iloc[train]).transform


def table_pipeline(frame: pd.DataFrame) -> ColumnTransformer:
    """scikit-learn's pipeline for mixed columns: impute and scale numbers, one-hot categories."""
    numeric = [c for c in frame if pd.api.types.is_numeric_dtype(frame[c])]
    categorical = [c for c in frame if c not in numeric]
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler())
    levels = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=LEVELS, sparse_output=False, dtype=np.float32)
    return ColumnTransformer([("numbers", numbers, numeric), ("categories", levels, categorical)], sparse_threshold=0.0)
