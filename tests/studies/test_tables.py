"""Tables as people have them: what is left out, and what is reported about it before training."""

from __future__ import annotations

import io
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thinned import InputError
from thinned.studies.api import _as_pandas
from thinned.studies.data import from_frame, load
from thinned.studies.folds import check_folds, splits
from thinned.studies.tables import TableOptions, combination, determines, table


def frame(n=60, seed=0, **columns):
    rng = np.random.default_rng(seed)
    base = {"a": rng.normal(size=n), "b": rng.normal(size=n), "label": rng.choice(["x", "y"], n)}
    return pd.DataFrame(base | columns)


def said(data):
    return " ".join(data.notes)


@pytest.mark.parametrize(
    ("name", "values", "left_out"),
    [
        ("Unnamed: 0", np.arange(60), True),
        ("index", np.arange(60) + 100, True),
        ("row", np.arange(1, 61), True),
        ("anything", np.arange(60), True),
        ("anything", np.arange(1, 61), True),
        ("customer_id", np.arange(60) * 17 + 1000, True),
        ("PassengerId", np.arange(60)[::-1] * 3, True),
        ("customer_id", np.arange(60) // 2, False),  # ids that repeat are groups
        ("income", np.arange(60) * 17 + 1000, False),
        ("year", np.arange(60) + 1960, False),
        ("t", np.arange(60), False),
        ("paid", np.arange(60) * 17, False),
    ],
)
def test_index_and_identifier_columns(name, values, left_out):
    shuffled = np.random.default_rng(1).permutation(values)
    data = from_frame(frame(**{name: shuffled}), "label", None)
    assert (name not in data.x) == left_out
    assert (f"Column {name} was left out: it looks like an index" in said(data)) == left_out
    assert ((name, "key") in [(n, k) for n, k, _ in data.columns]) == left_out
    kept = from_frame(frame(**{name: shuffled}), "label", None, options=TableOptions(keep=(name,)))
    assert name in kept.x


def test_keys_of_duplicate_rows_are_keys():
    table_ = frame(row=np.arange(60))
    assert "row" not in from_frame(pd.concat([table_, table_.head(4)]), "label", None).x


def test_drop():
    options = TableOptions(drop=("b",))
    data = from_frame(frame(), "label", None, options=options)
    assert list(data.x) == ["a"]
    assert "Left out by --drop: b." in data.notes
    for bad, message in (
        (TableOptions(drop=("c",)), "--drop 'c' is not a column"),
        (TableOptions(drop=("label",)), "--drop 'label' is the target"),
        (TableOptions(drop=("a",), keep=("a",)), "--drop and --keep both name 'a'"),
        (TableOptions(drop=("a", "b")), "no column besides the target"),
    ):
        with pytest.raises(InputError, match=message):
            from_frame(frame(), "label", None, options=bad)


def test_columns_left_out_are_said_with_the_reason():
    data = from_frame(
        frame(empty=[None] * 60, same=["z"] * 60, name=[f"n{i}" for i in range(60)]), "label", None
    )
    assert list(data.x) == ["a", "b"]
    assert "Column empty was left out: it has no values." in data.notes
    assert "Column same was left out: it is z in every row." in data.notes
    assert "Column name was left out: its 60 distinct strings look like names" in said(data)
    assert [k for _, k, _ in data.columns] == ["number", "number", "empty", "constant", "name"]


def test_na_texts_are_missing():
    table_ = frame(c=["-999", "1.5", "2.5"] * 20, d=["none", "p", "q"] * 20)
    data = from_frame(table_, "label", None, options=TableOptions(na=("-999", "none")))
    assert data.x["c"].isna().sum() == data.x["d"].isna().sum() == 20
    assert from_frame(table_, "label", None).x["c"].min() == -999


def test_rows_left_out_are_said(tmp_path):
    path = tmp_path / "t.csv"
    rows = "".join(f"{i},{i * 1.5},{'xy'[i % 2]}\n" for i in range(50))
    path.write_text("k,v,label\n" + rows + "7,3.0,\n,,\nTotal,1837.5,\n")
    data = load(str(path), "label")
    assert len(data) == 50
    assert "1 rows without a value of label were left out." in data.notes
    assert "1 empty rows were left out." in data.notes
    assert "1 last rows look like a footer and were left out: 'Total'." in data.notes


def test_a_total_below_a_target_of_values_is_no_row():
    rows = frame(40, name=[f"shop {i % 4}" for i in range(40)]).drop(columns="label")
    rows.loc[40] = [None, rows["b"].sum(), "Total"]
    data = from_frame(rows[["name", "a", "b"]], "b", None)
    assert len(data) == 40
    # as a category with other rows, it is one
    rows["name"] = ["Total", "part"] * 20 + ["Total"]
    assert len(from_frame(rows[["name", "a", "b"]], "b", None)) == 41


def test_a_column_that_alone_determines_the_target_is_warned_of():
    labels = frame()["label"]
    data = from_frame(frame(code=np.where(labels == "x", "p", "q")), "label", None)
    assert data.warnings == [
        "Column code alone determines label in all 60 rows where it has a value; if it is not "
        "known before label is, leave it out with --drop code."
    ]
    assert from_frame(frame(), "label", None).warnings == []
    y = np.random.default_rng(2).normal(size=60)
    data = from_frame(frame(y=y, fahrenheit=1.8 * y + 32), "y", None)
    assert "Column fahrenheit alone determines y in all 60 rows" in data.warnings[0]


def test_columns_that_add_up_to_the_target_are_warned_of_by_name():
    rng = np.random.default_rng(0)
    casual, registered = rng.integers(0, 100, 80), rng.integers(0, 900, 80)
    table_ = frame(80, casual=casual, registered=registered, cnt=casual + registered)
    data = from_frame(table_, "cnt", None)
    assert len(data.warnings) == 1
    assert "A linear combination of casual, registered gives cnt exactly" in data.warnings[0]
    assert "--drop casual" in data.warnings[0]
    table_["cnt"] += rng.normal(size=80)
    assert from_frame(table_, "cnt", None).warnings == []
    few = frame(80, p=casual % 3, q=registered % 4)
    few["sum"] = few["p"] + few["q"]  # six classes
    assert "linear combination of p, q gives sum" in from_frame(few, "sum", None).warnings[0]


def test_determines_and_combination():
    codes = np.arange(40) % 2
    assert determines(pd.Series(codes * 3.0), codes, None)
    assert determines(pd.Series(np.where(codes, 10.0, -10.0) + np.arange(40)), codes, None) is False
    assert determines(pd.Series(np.where(codes, 100.0, -100.0) + np.arange(40)), codes, None)
    assert not determines(pd.Series([f"k{i}" for i in range(40)]), codes, None)  # a key
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 4)), columns=list("abcd"))
    assert sorted(combination(x, (2 * x["a"] - x["d"] + 5).to_numpy())) == ["a", "d"]
    assert combination(x, (x["a"] * x["d"]).to_numpy()) == []


def test_duplicate_rows_are_counted():
    table_ = pd.concat([frame(), frame().head(5)])
    data = from_frame(table_, "label", None)
    assert data.warnings[0].startswith("10 of 65 rows are equal to another row (features and")


def test_separate_test_tables(tmp_path):
    train, test = frame(), frame(20, seed=1)
    train["v"], test["v"] = [f"${i}" for i in range(60)], [f"{i} %" for i in range(20)]
    data = from_frame(train, "label", None, test=pd.concat([test, train.head(3)]))
    x, y = data.extra
    assert (len(x), len(y)) == (23, 23)
    assert x["v"][:3].tolist() == [0.0, 0.01, 0.02]
    assert [data.classes[c] for c in y[:20]] == test["label"].tolist()
    assert "3 of 23 rows of the separate test set are also in the data" in data.warnings[-1]
    fold = splits(data, 3, 1, 0)[0]
    assert fold.extra.x.shape == (23, fold.train.x.shape[1])
    assert data.digest() != from_frame(train, "label", None, test=test).digest()
    path = tmp_path / "test.csv"
    test.to_csv(path, index=False)
    train.to_csv(tmp_path / "train.csv", index=False)
    loaded = load(str(tmp_path / "train.csv"), "label", test=str(path))
    np.testing.assert_allclose(loaded.extra[0]["a"], test["a"])
    for bad, message in (
        (test.drop(columns="a"), "the test table has no column 'a'"),
        (test.assign(label="new"), "the test table holds the class 'new'"),
        (test.head(0), "the test table has no rows"),
        (str(tmp_path / "tset.csv"), "--test .* has to be the path of a table .*'test.csv'"),
    ):
        with pytest.raises(InputError, match=message):
            from_frame(train, "label", None, test=bad)
    with pytest.raises(InputError, match="--test is for tables, but the data are the handwritten"):
        load(None, test=str(path))


def test_test_targets_have_the_decimal_mark_of_the_data():
    train = frame().assign(price=[f"{i},5" for i in range(60)])
    test = frame(5).assign(price=["1,250", "2,125", "3,000", "4,000", "5,000"])
    assert from_frame(train, "price", None, test=test).extra[1].tolist() == [1.25, 2.125, 3, 4, 5]


def test_texts_become_tfidf_features_of_the_training_rows():
    words = [f"w{i}" for i in range(30)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 5)) for _ in range(60)]
    texts[0] = "a word that occurs once only"
    data = from_frame(frame(question=texts), "label", None)
    assert data.texts == ("question",)
    assert "Texts (question) became TF-IDF features" in said(data)
    for fold in splits(data, 3, 1, 0):
        rows = {name: getattr(fold, name) for name in ("train", "val", "test")}
        assert not hasattr(rows["train"].x, "numpy")  # sparse
        known = {w for i in rows["train"].ids.tolist() for w in texts[i].split()}
        assert rows["train"].x.shape[1] == 2 + len(known)  # a, b and the words
        for part in rows.values():
            norm = part.dense_x[:, 2:].norm(dim=1)
            covered = [bool(known & set(texts[i].split())) for i in part.ids.tolist()]
            np.testing.assert_allclose(norm, np.array(covered, float), atol=1e-6)
        where = [n for n, p in rows.items() if 0 in p.ids.tolist()]
        assert ("occurs" in known) == (where == ["train"])


def test_dates_from_files_and_the_order_of_time(tmp_path):
    path = tmp_path / "t.csv"
    days = pd.date_range("2020-01-01", periods=60)
    frame(when=days.strftime("%d/%m/%Y")).to_csv(path, index=False)
    data = load(str(path), "label")
    assert data.x["when (days since 1970)"].tolist() == list(range(18262, 18322))
    assert "when became days since 1970, year, month, day of week." in data.notes
    assert "when looks like time, but rows were shuffled" in data.warnings[0]
    ordered = load(str(path), "label", time="when")
    assert not any(str(c).startswith("when") for c in ordered.x)
    assert (np.diff(ordered.time) > 0).all()  # day first, also where the day is below 13


def test_rows_from_polars_and_lazy_frames():
    polars = pytest.importorskip("polars")
    table_ = polars.DataFrame(
        {
            "amount": ["1,234", "2,345", "?"] * 20,
            "price": polars.Series([1.25, 2.5, None] * 20).cast(polars.Decimal(10, 2)),
            "label": polars.Series(["x", "y", "x"] * 20, dtype=polars.Categorical),
        }
    )
    for source in (table_, table_.lazy()):
        data = from_frame(_as_pandas(source), "label", None)
        assert data.x["amount"][:2].tolist() == [1234, 2345]
        assert data.x["price"][:2].tolist() == [1.25, 2.5]
        assert data.classes == ["x", "y"]


def test_parquet_decimals_and_durations(tmp_path):
    table_ = pa.table(
        {
            "d": pa.array([Decimal(i) / 4 for i in range(40)], pa.decimal128(10, 2)),
            "t": pa.array([i * 1_000_000 for i in range(40)], pa.duration("us")),
            "label": ["x", "y"] * 20,
        }
    )
    pq.write_table(table_, tmp_path / "t.parquet")
    data = load(str(tmp_path / "t.parquet"), "label")
    assert data.x["d"].tolist() == [i / 4 for i in range(40)]
    assert data.x["t"].tolist() == [float(i) for i in range(40)]


def test_rare_classes_of_numbers_name_the_task():
    table_ = frame(y=[*range(2), *[5, 6] * 29]).drop(columns="label")
    with pytest.raises(InputError, match="or --task regression where the target is a number"):
        check_folds(from_frame(table_, "y", None), 3)


TELCO = """customerID,SeniorCitizen,tenure,PaymentMethod,TotalCharges,Churn
""" + "".join(
    f"{7000 + i}-ABCD{i},{i % 2},{i % 70},{('Check', 'Card')[i % 3 == 0]},"
    f"{'' if i % 70 else ' '}{i * 1.35 if i % 70 else ''},{('No', 'Yes')[i % 4 == 0]}\n"
    for i in range(200)
)
ADULT = "age, workclass, hours, income\n" + "".join(
    f"{20 + i % 50}, {('Private', '?', 'State-gov')[i % 3]}, {'?' if i % 40 == 0 else i % 60}, "
    f"{('<=50K', '>50K')[i % 4 == 0]}\n"
    for i in range(200)
)
HOUSES = "Id;Alley;Date;Preis;Rate;Verkauf\n" + "".join(
    f"{i + 1};{('None', 'Grvl')[i % 2]};{i % 28 + 1:02d}.03.2021;{1000 + 13 * i:,};".replace(
        ",", "."
    )
    + f"{i % 9},5 %;{(i * 37) % 101},25\n"
    for i in range(150)
)


@pytest.mark.parametrize(
    ("text", "target", "kinds", "values"),
    [
        (
            TELCO,
            "Churn",
            ["name", "number", "number", "category", "number"],
            {"TotalCharges": [np.nan, 1.35, 2.7]},
        ),
        (ADULT, "income", ["number", "category", "number"], {"hours": [np.nan, 1, 2]}),
        (
            HOUSES,
            "Verkauf",
            ["key", "category", "date", "number", "number"],
            {"Preis": [1000, 1013, 1026], "Rate": [0.005, 0.015, 0.025]},
        ),
    ],
)
def test_public_tables_in_small(tmp_path, text, target, kinds, values):
    path = tmp_path / "t.csv"
    path.write_text(text)
    data = load(str(path), target)
    assert [k for _, k, _ in data.columns] == kinds
    for name, expected in values.items():
        np.testing.assert_allclose(data.x[name][:3], expected)
    assert splits(data, 3, 1, 0)[0].train.x.isfinite().all()


def test_empty_cells_of_frames_and_buffers():
    table_ = pd.read_csv(io.StringIO(ADULT))
    data = table(table_, " income", None, "adult")
    assert data.classes == ["<=50K", ">50K"]
