"""Reading data, with an error for every way in which they can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from thinned import InputError
from thinned.studies import columns, tables, targets
from thinned.studies.data import from_arrays, from_frame, load, read_idx
from thinned.studies.folds import check_folds, splits


def frame(n=120, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(40, 10, n),
            "city": rng.choice(["Paris", "Rome", "Oslo"], n),
            "member": rng.random(n) < 0.5,
            "label": rng.choice(["yes", "no"], n),
            "price": rng.normal(size=n),
        }
    )


def write_idx(folder: Path, n=40, h=6, w=5, prefix="train", zipped=True):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (n, h, w), np.uint8), (np.arange(n) % 4).astype(np.uint8)
    for name, array in (("images-idx3-ubyte", x), ("labels-idx1-ubyte", y)):
        raw = (
            b"\0\0\x08"
            + bytes([array.ndim])
            + struct.pack(f">{array.ndim}I", *array.shape)
            + array.tobytes()
        )
        path = folder / f"{prefix}-{name}{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(raw) if zipped else raw)
    return x, y


def test_default_is_digits():
    data = load(None)
    assert (data.name, len(data), data.image, data.kind, len(data.classes)) == (
        "digits",
        1797,
        (1, 8, 8),
        "classification",
        10,
    )


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".tsv", ".csv.gz"])
def test_tables(tmp_path, ending):
    path, table = tmp_path / f"people{ending}", frame()
    if ending == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    data = load(str(path), "label")
    assert (data.name, data.kind, data.classes) == ("people", "classification", ["no", "yes"])
    assert list(data.x.columns) == ["age", "city", "member", "price"]
    assert load(str(path), "price").kind == "regression"
    assert load(str(path), "price").target == "price"


def test_mixed_columns_become_numbers():
    table = frame()
    table.loc[3, "age"], table.loc[5, "age"], table.loc[7, "city"] = np.nan, np.inf, None
    data = from_frame(table, "label", None)
    text = " ".join(data.notes)
    assert "1 values of age count as missing: infinite" in text
    assert "3 missing values" in text
    assert "Categories (city) became 0/1 columns" in text
    for split in splits(data, 3, 1, 0):
        assert split.train.x.isfinite().all()
        assert abs(split.train.x[:, 0].mean()) < 1e-5  # age, scaled on training rows
        assert abs(split.train.x[:, 0].std(correction=0) - 1) < 1e-4
        assert set(split.train.x[:, -3:].unique().tolist()) == {0.0, 1.0}


def test_no_information_leaks_from_test_rows():
    """A category that only a test row has is unknown in training, and a huge test value does not
    move the mean.
    """
    table = frame()
    data = from_frame(table, "price", None)
    fold = splits(data, 3, 1, 0)[0]
    row = int(fold.test.ids[0])
    table.loc[row, "city"], table.loc[row, "age"] = "Atlantis", 1e9
    changed = splits(from_frame(table, "price", None), 3, 1, 0)[0]
    assert changed.train.x.equal(fold.train.x)
    assert changed.test.x[0, 0] > 1e6
    assert not changed.test.x[0, 3:].any() or changed.test.x.shape[1] == fold.test.x.shape[1]


def test_regression_targets_are_standardized_on_training_rows():
    data = from_frame(frame(), "price", None)
    for split in splits(data, 3, 1, 0):
        assert abs(split.train.y.mean()) < 1e-6
        back = split.test.y.double() * split.task.scale
        raw = data.y[split.test.ids.numpy()]
        np.testing.assert_allclose((back - back.mean()).numpy(), raw - raw.mean(), atol=1e-5)


def test_folds_are_a_partition_with_every_class():
    data = load(None, limit=300)
    assert "300 of 1,797 rows were used" in data.notes[-1]
    folds = splits(data, 5, 2, 0)
    assert len(folds) == 10
    for repeat in (folds[:5], folds[5:]):
        tested = np.concatenate([f.test.ids.numpy() for f in repeat])
        assert sorted(tested) == list(range(300))
        for f in repeat:
            parts = [set(p.ids.tolist()) for p in (f.train, f.val, f.test)]
            assert sum(map(len, parts)) == 300
            assert len(set.union(*parts)) == 300
            assert len(f.train.y.unique()) == len(f.val.y.unique()) == 10
    assert not folds[0].test.ids.equal(folds[5].test.ids)


def test_npz(tmp_path):
    path, rng = tmp_path / "a.npz", np.random.default_rng(0)
    x = rng.random((60, 8, 8, 3))
    np.savez(path, x=x, y=np.arange(60) % 3, x_test=x[:10], y_test=np.arange(10) % 3)
    data = load(str(path))
    assert data.image == (3, 8, 8)
    np.testing.assert_allclose(data.x[0].reshape(3, 8, 8), np.moveaxis(x[0], 2, 0), rtol=1e-6)
    assert len(data.extra[1]) == 10
    assert len(splits(data, 3, 1, 0)[0].extra) == 10


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_folder(tmp_path, zipped):
    x, y = write_idx(tmp_path / "images", zipped=zipped)
    write_idx(tmp_path / "images", n=12, prefix="t10k", zipped=zipped)
    data = load(str(tmp_path / "images"))
    assert (data.name, data.image, len(data)) == ("images", (1, 6, 5), 40)
    np.testing.assert_array_equal(data.x, x.reshape(40, -1))
    np.testing.assert_array_equal(data.y, y)
    assert len(data.extra[1]) == 12


def test_openml_goes_through_scikit_learn(monkeypatch):
    class Bunch:
        frame, target_names = frame(), ["label"]

    asked = {}
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda **k: asked.update(k) or Bunch)
    assert load("openml:people").target == "label"
    assert asked["name"] == "people"
    load("openml:42", target="price")
    assert asked["data_id"] == 42

    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(
        InputError, match=r"openml:people could not be fetched \(OSError: no route to host\)"
    ):
        load("openml:people")


def test_arrays_and_images():
    rng = np.random.default_rng(0)
    data = from_arrays(rng.random((50, 4)), rng.random(50), None)
    assert (data.kind, data.image) == ("regression", None)
    assert from_arrays(rng.random((50, 7, 7)), np.arange(50) % 2, None).image == (1, 7, 7)
    assert from_arrays(rng.random((50, 4)), np.array(["a", "b"] * 25), None).classes == ["a", "b"]
    assert (
        from_arrays(rng.random((50, 4)), np.array([True, False] * 25), None).kind
        == "classification"
    )
    assert from_arrays(rng.random((50, 4)), np.arange(50) % 2, "regression").kind == "regression"


def test_values_are_centered_before_they_are_rounded_to_float32():
    """Unix times of one minute differ by less than float32 can represent at their size."""
    seconds = 1.7e9 + np.arange(60)
    data = from_arrays(np.stack([seconds, np.arange(60)], 1), np.arange(60) % 2, None)
    for fold in splits(data, 3, 1, 0):
        x = torch.cat([fold.train.x, fold.val.x, fold.test.x])
        assert len(x[:, 0].unique()) == 60
        torch.testing.assert_close(x[:, 0], x[:, 1], atol=1e-4, rtol=0)
    images = from_arrays((1e6 + np.arange(60 * 4) / 16).reshape(60, 2, 2), np.arange(60) % 2, None)
    fold = splits(images, 3, 1, 0)[0]
    assert len(torch.cat([fold.train.x, fold.val.x, fold.test.x]).unique()) == 240


def test_sparse_matrices_are_kept_sparse():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((90, 40)) < 0.1, rng.normal(size=(90, 40)), 0.0)
    y = np.arange(90) % 3
    data = from_arrays(sparse.csr_matrix(dense), y, None)
    assert sparse.issparse(data.x)
    assert data.digest() == from_arrays(sparse.coo_array(dense), y, None).digest()
    assert data.digest() != from_arrays(sparse.csr_array(2 * dense), y, None).digest()
    for fold in splits(data, 3, 1, 0):
        train = dense[fold.train.ids.numpy()]
        largest = np.abs(train).max(0)
        scale = np.where(largest > 0, largest, 1.0)
        for part in (fold.train, fold.val, fold.test):
            expected = torch.tensor(dense[part.ids.numpy()] / scale, dtype=torch.float32)
            torch.testing.assert_close(part.dense_x, expected)
            torch.testing.assert_close(part.x[3:7], expected[3:7])
            torch.testing.assert_close(
                part.take(torch.tensor([5, 0, 5])).dense_x, expected[[5, 0, 5]]
            )
    with pytest.raises(InputError, match="x holds NaN, infinite values"):
        from_arrays(sparse.csr_array(dense + np.inf), y, None)
    assert len(from_arrays(sparse.csr_array(dense), y, None, limit=50)) == 50


def test_digest_sees_a_change():
    a, b = frame(), frame()
    b.loc[0, "age"] += 1e-9
    assert from_frame(a, "label", None).digest() == from_frame(frame(), "label", None).digest()
    assert from_frame(a, "label", None).digest() != from_frame(b, "label", None).digest()


def bad_npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def case(tmp_path, name):
    """(arguments of load, the message)."""
    table, path = frame(), tmp_path / "t.csv"

    def save(t):
        t.to_csv(path, index=False)
        return str(path)

    ones, labels = np.ones((30, 2)), np.arange(30) % 2
    match name:
        case "missing file":
            save(table)
            return (str(tmp_path / "u.csv"),), r"does not exist; did you mean 't\.csv'"
        case "unknown ending":
            (tmp_path / "a.xyz").write_text("1")
            return (str(tmp_path / "a.xyz"),), r"unknown ending, '\.xyz'; use \.csv, .* with --data"
        case "empty file":
            path.write_text("")
            return (str(path), "label"), r"t\.csv is empty"
        case "only a header":
            path.write_text("a,label\n")
            return (str(path), "label"), "no rows with a value of 'label'"
        case "no target":
            return (save(table),), "--target NAME; its columns are age, city, member, label, price"
        case "wrong target":
            return (save(table), "lable"), "target 'lable' is not a column; did you mean 'label'"
        case "constant target":
            return (
                save(table.assign(label="yes")),
                "label",
            ), r"target 'label' is constant \('yes'\)"
        case "text for regression":
            return (
                save(table),
                "label",
                "regression",
            ), "needs a target of numbers, but 'label' holds"
        case "numbers as classes":
            return (save(table), "price", "classification"), "has 120 classes in 120 rows"
        case "all-missing column":
            voids = pd.DataFrame({"void": [None] * 120, "label": table["label"]})
            return (save(voids), "label"), "no column is left .* Column void was left out"
        case "only the target":
            return (save(table[["label"]]), "label"), "no column besides the target"
        case "only texts":
            texts = pd.DataFrame({"t": [f"text {i}" for i in range(120)], "label": table["label"]})
            return (save(texts), "label"), "no column is left to learn from"
        case "binary as csv":
            path.write_bytes(bytes(range(256)) * 20)
            return (str(path), "label"), r"cannot be read as a table|is not a column"
        case "damaged parquet":
            (tmp_path / "d.parquet").write_bytes(b"PAR1 nonsense")
            return (str(tmp_path / "d.parquet"), "label"), "cannot be read as a table"
        case "pickled npz":
            return (
                bad_npz(tmp_path / "p.npz", x=np.array([{}, []], dtype=object), y=labels),
            ), "holds pickled objects"
        case "damaged npz":
            (tmp_path / "d.npz").write_bytes(b"PK\3\4 nonsense")
            return (str(tmp_path / "d.npz"),), "cannot be read as NPZ"
        case "npy as npz":
            with (tmp_path / "n.npz").open("wb") as file:
                np.save(file, ones)
            return (str(tmp_path / "n.npz"),), "cannot be read as NPZ"
        case "npz without y":
            return (
                bad_npz(tmp_path / "n.npz", x=ones, labels=labels),
            ), "named 'x' and 'y', but has labels, x"
        case "npz of text":
            return (
                bad_npz(tmp_path / "n.npz", x=np.array([["a"]] * 30), y=labels),
            ), "x has to hold numbers"
        case "npz of unequal lengths":
            return (
                bad_npz(tmp_path / "n.npz", x=ones, y=labels[:9]),
            ), "one value for each of the 30 rows"
        case "npz of five axes":
            return (
                bad_npz(tmp_path / "n.npz", x=np.ones((30, 1, 1, 1, 1)), y=labels),
            ), r"its shape is \(30, 1, 1, 1, 1\)"
        case "npz with nan":
            return (
                bad_npz(tmp_path / "n.npz", x=ones * np.nan, y=labels),
            ), "x holds NaN or infinite values"
        case "empty folder":
            (tmp_path / "f").mkdir()
            return (str(tmp_path / "f"),), "needs train-images-idx3-ubyte and .*, but has nothing"
        case "openml without a name":
            return ("openml:",), "needs a name or a number"
    raise AssertionError(name)


CASES = [
    "missing file",
    "unknown ending",
    "empty file",
    "only a header",
    "no target",
    "wrong target",
    "constant target",
    "text for regression",
    "numbers as classes",
    "all-missing column",
    "only the target",
    "only texts",
    "binary as csv",
    "damaged parquet",
    "pickled npz",
    "damaged npz",
    "npy as npz",
    "npz without y",
    "npz of text",
    "npz of unequal lengths",
    "npz of five axes",
    "npz with nan",
    "empty folder",
    "openml without a name",
]


@pytest.mark.parametrize("name", CASES)
def test_bad_data(tmp_path, name):
    arguments, message = case(tmp_path, name)
    with pytest.raises(InputError, match=message):
        load(*arguments)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n" + "5,1,0,9\n7,2,1,8\n" * 20, "its rows are longer than its header"),
        (
            "a,b,y\n" + "\n".join(f"{i},1,{i % 2},0" for i in range(40)),
            "its rows are longer than its header",
        ),
        (
            "a,y,y\n" + "5,0,1\n7,1,0\n" * 20,
            "column names have to be distinct, but 'y' occurs more than once",
        ),
        (
            "a,a,y\n" + "5,0,1\n7,1,0\n" * 20,
            "column names have to be distinct, but 'a' occurs more than once",
        ),
        ("\n\n\n", "cannot be read as a table"),
    ],
)
def test_tables_with_ambiguous_columns_are_refused(tmp_path, text, message, ending):
    path = tmp_path / f"t{ending}"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load(str(path), "y")


def test_delimiters_at_the_end_of_lines_add_no_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "5,0,\n7,1,\n" * 20)
    assert load(str(path), "y").x["a"].tolist() == [5, 7] * 20


def test_options_without_effect_are_refused(tmp_path):
    write_idx(tmp_path / "i")
    np.savez(tmp_path / "a.npz", x=np.ones((30, 2)), y=np.arange(30) % 2)
    for source in (None, str(tmp_path / "i"), str(tmp_path / "a.npz")):
        with pytest.raises(
            InputError, match=r"--target is for tables, but the data are .*; leave out --target z"
        ):
            load(source, "z")
    for source in (None, str(tmp_path / "i")):
        with pytest.raises(InputError, match="--task regression needs a numeric target"):
            load(source, kind="regression")
    with pytest.raises(InputError, match="does not exist"):
        load("x" * 5000)


@pytest.mark.parametrize(
    ("y", "y_test", "expected"),
    [
        (np.arange(60) % 3, np.array([2.0, 0.0]), [2, 0]),
        (np.arange(60) % 3 + 1, np.array([[3], [1]]), [2, 0]),
        (np.arange(60) % 2 > 0, np.array([True, False]), [1, 0]),
        (np.array(["1", "01"])[np.arange(60) % 2], np.array(["1", "01"]), [1, 0]),
        (np.arange(60) * 0.5, np.array([[3], [1]]), [3.0, 1.0]),
        (
            np.arange(60) % 3,
            np.array([5, 0]),
            "y_test holds the class 5, which no training row has",
        ),
        (np.arange(60) % 3, np.array([0]), "y_test has to hold one value for each of the 2 rows"),
        (np.arange(60) * 0.5, np.array(["q", "r"]), "y_test has to hold finite numbers"),
        (np.arange(60) * 0.5, np.array([np.inf, 1]), "y_test has to hold finite numbers"),
        (np.arange(60) % 3, None, None),
    ],
)
def test_targets_of_test_sets_are_mapped_by_value(tmp_path, y, y_test, expected):
    arrays = {"x": np.ones((60, 4)), "y": y, "x_test": np.ones((2, 4))} | (
        {} if y_test is None else {"y_test": y_test}
    )
    np.savez(tmp_path / "a.npz", **arrays)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            load(str(tmp_path / "a.npz"))
        return
    data = load(str(tmp_path / "a.npz"))
    if expected is None:
        assert data.extra is None
        assert "The test set was left out" in data.notes[-1]
    else:
        assert data.extra[1].tolist() == expected


@pytest.mark.parametrize(
    ("shape", "test", "message"),
    [
        ((60, 4), (2, 3), r"row of x_test has to have the shape .*, \(4,\), but has \(3,\)"),
        ((60, 4, 4), (2, 3, 3), r"shape of the training rows, \(1, 4, 4\), but has \(1, 3, 3\)"),
        ((60, 4, 4), (2, 16), r"the shape of the training rows, \(1, 4, 4\), but has \(16,\)"),
        ((60, 4), (0, 4), "x_test has to be .* with rows in it"),
    ],
)
def test_rows_of_test_sets_are_as_in_training(tmp_path, shape, test, message):
    y = np.arange(60) % 2
    np.savez(tmp_path / "a.npz", x=np.ones(shape), y=y, x_test=np.ones(test), y_test=y[: test[0]])
    with pytest.raises(InputError, match=message):
        load(str(tmp_path / "a.npz"))


def test_labels_of_idx_test_sets_are_mapped(tmp_path):
    def labels(prefix, values):
        raw = b"\0\0\x08\1" + struct.pack(">I", len(values)) + bytes(values)
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(raw)

    write_idx(tmp_path, zipped=False)
    write_idx(tmp_path, n=4, prefix="t10k", zipped=False)
    labels("train", [5, 9] * 20)
    labels("t10k", [9, 5, 5, 9])
    assert load(str(tmp_path)).extra[1].tolist() == [1, 0, 0, 1]
    labels("t10k", [9, 5, 5, 0])
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte holds the class 0"):
        load(str(tmp_path))
    write_idx(tmp_path, n=0, zipped=False)
    with pytest.raises(InputError, match=r"with rows in it, but its shape is \(0, 6, 5\)"):
        load(str(tmp_path))


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}])
def test_columns_of_lists_are_refused(value):
    for name in ("age", "label"):
        with pytest.raises(
            InputError, match=f"column '{name}' holds values of type {type(value).__name__}"
        ):
            from_frame(frame().assign(**{name: [value] * 120}), "label", None)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array(["a", None] * 60, dtype=object), "y holds 60 missing values"),
        (np.array(["a", "b", " "] * 40), "y holds 40 empty or unknown values"),
        (np.where(np.arange(120) == 3, np.nan, np.arange(120) % 2), "y holds 1 missing values"),
        (np.linspace(-1e300, 1e300, 120), "standard deviation of inf, too far from 1"),
        (np.linspace(-1e35, 1e35, 120), r"standard deviation of 5.*e\+34, too far from 1"),
        (np.full(120, 1.5), r"constant \(1\.5\)"),
        (np.arange(120) * 1j, "its dtype is complex128"),
    ],
)
def test_bad_targets(y, message):
    with pytest.raises(InputError, match=message):
        from_arrays(np.ones((120, 2)), y, None)


@pytest.mark.parametrize(
    ("y", "folds", "message"),
    [
        (["rare"] * 3 + ["common"] * 37, 2, "class 'rare' has 3 rows, fewer than 4 for 2 folds"),
        (
            [f"c{i % 18}" for i in range(90)],
            3,
            "18 classes need as many validation rows, but 3 folds of 90 rows have 12",
        ),
    ],
)
def test_impossible_inner_splits_are_refused(y, folds, message):
    with pytest.raises(InputError, match=message):
        splits(from_arrays(np.ones((len(y), 2)), np.array(y), None), folds, 1, 0)


def test_rarest_possible_classes_are_split():
    rng = np.random.default_rng(0)
    for folds in range(2, 7):
        need = max(folds, 4 if folds == 2 else 3)
        for n in range(10 * folds, 10 * folds + 12):
            y = np.array([0] * need + [1] * (n - need))
            data = from_arrays(rng.normal(size=(n, 2)), rng.permutation(y), None)
            assert len(splits(data, folds, 1, 0)) == folds
    for limit in (118, 119):
        assert len(from_frame(frame(), "label", None, limit=limit)) == limit


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"\0\0\x08\x03" + struct.pack(">III", 2**31, 2**31, 4),
            "is damaged: its header says 2147483648 x",
        ),
        (b"", "is not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\1\0", "is not an IDX file"),
        (b"\0\0\x08\x01\0\0\0\x09abc", "is damaged: its header says 9 bytes, but 3 follow"),
        (b"\0\0\x08\x03\0\0\0\x09", "is damaged"),
        (b"\x1f\x8b\x08\0broken", "cannot be read"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab", mtime=0)[:-6], "cannot be read"),
    ],
)
def test_bad_idx(tmp_path, raw, message):
    path = tmp_path / "x-ubyte"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_impossible_folds_are_refused():
    data = load(None, limit=100)
    with pytest.raises(InputError, match="20 folds need at least 200 rows, but there are 100"):
        check_folds(data, 20)
    table = frame()
    table["label"] = ["rare"] * 2 + ["common"] * 118
    with pytest.raises(InputError, match="class 'rare' has 2 rows, fewer than 5 for 5 folds"):
        check_folds(from_frame(table, "label", None), 5)


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not here")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_images(name):
    data = load(str(SHARED / name), limit=1000)
    assert (len(data), data.image, len(data.classes), len(data.extra[1])) == (
        1000,
        (1, 28, 28),
        10,
        10_000,
    )
    assert np.bincount(data.y).min() > 80


def test_module_constants_are_the_documented_ones():
    assert (columns.LEVELS, targets.CLASSES, tables.TEXT_FEATURES) == (50, 30, 2000)
