"""Files of tables: encodings, delimiters, compression, spreadsheets."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import pandas as pd
import pytest

from thinned import InputError
from thinned.studies.data import load
from thinned.studies.reading import Reading, decode, delimiter, read_table, table_ending

ROWS = [("Zoë", "1,5", "ja"), ("Jörg", "2,25", "nein")] * 15


def text_of(sep=";", rows=ROWS):
    return "\n".join(sep.join(row) for row in [("näme", "größe", "ziel"), *rows]) + "\n"


def read(path, **options):
    notes: list[str] = []
    return read_table(path, Reading(**options), notes), " ".join(notes)


@pytest.mark.parametrize("ending", [".csv", ".txt", ".tsv"])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "read as utf-16"),
        ("utf-16-le", "read as utf-16-le"),
        ("utf-16-be", "read as utf-16-be"),
        ("utf-32", "read as utf-32"),
        ("latin-1", "read as cp1252"),
        ("cp1252", "read as cp1252"),
    ],
)
def test_encodings(tmp_path, ending, encoding, said):
    path = tmp_path / f"t{ending}"
    path.write_bytes(text_of().encode(encoding))
    frame, notes = read(path)
    assert list(frame) == ["näme", "größe", "ziel"]
    assert frame.iloc[1].tolist() == ["Jörg", "2,25", "nein"]
    assert said in notes
    assert ("--encoding" in notes) == bool(said)
    assert "separated by semicolon (--sep overrides that)" in notes
    assert load(str(path), "ziel").x["größe"].tolist() == [1.5, 2.25] * 15


@pytest.mark.parametrize("ending", [".csv", ".txt", ".tsv"])
@pytest.mark.parametrize("sep", [",", ";", "\t", "|", " "])
def test_delimiters(tmp_path, ending, sep):
    path = tmp_path / f"t{ending}"
    rows = [(str(i), str(i * 0.5), "ab"[i % 2]) for i in range(40)]
    path.write_text(sep.join(("x", "y", "z")) + "\n" + "\n".join(map(sep.join, rows)))
    frame, _ = read(path)
    assert frame.to_numpy().tolist() == [list(r) for r in rows]


@pytest.mark.parametrize("sep", ["\t", ";", ","])
def test_empty_cells_remain_in_their_columns(tmp_path, sep):
    path = tmp_path / "t.csv"
    path.write_text(sep.join("abcd") + "\n" + (sep.join(["1", "", "x y", ""]) + "\n") * 30)
    frame, _ = read(path)
    assert frame.fillna("").iloc[29].tolist() == ["1", "", "x y", ""]


def test_the_delimiter_of_excel_and_of_the_option(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sep=;\n" + "a;b\n" + "1,0;2\n" * 20)
    assert list(read(path)[0]) == ["a", "b"]
    path.write_text("a:b\n" + "1,0:2\n" * 20)
    assert read(path, sep=":")[0].iloc[0].tolist() == ["1,0", "2"]
    assert read(path, sep=":")[1] == ""
    path.write_text("a\tb\n" + "1 x\t2\n" * 20)
    assert read(path, sep="tab")[0].iloc[0].tolist() == ["1 x", "2"]


def test_delimiters_inside_quotation_marks_do_not_count():
    text = 'a,b\n"x;y;z","1;2;3"\n"p;q;r","4;5;6"\n'
    assert delimiter(text, ",") == ","
    assert delimiter("question\nwhat is it, really\nhow, when, where\n", ",") == ","


def test_encoding_of_the_option(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\nд,1\n".encode("cp1251") * 3)
    assert read(path, encoding="cp1251")[0]["a"][0] == "д"
    with pytest.raises(InputError, match=r"cannot be read as ascii .*--encoding"):
        read(path, encoding="ascii")
    assert decode("ab".encode("utf-16-le")) == ("ab", "utf-16-le")


def test_cells_are_texts_whatever_their_number(tmp_path):
    """pandas guesses types by parts of a large file, so 0 and "0" could be two classes there."""
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "1,0\n2,1\n" * 150_000 + "x,a\n" * 20)
    frame, _ = read(path)
    assert frame["y"].value_counts().to_dict() == {"0": 150_000, "1": 150_000, "a": 20}
    assert load(str(path), "y").classes == ["0", "1", "a"]


def test_rows_without_a_header(tmp_path):
    path = tmp_path / "data.txt"
    rng = np.random.default_rng(0)
    np.savetxt(path, rng.normal(size=(50, 3)))
    frame, notes = read(path)
    assert (frame.shape, list(frame)) == ((50, 3), ["column 1", "column 2", "column 3"])
    assert "The first row holds only numbers, so it is data" in notes
    assert load(str(path), "column 3").kind == "regression"


@pytest.mark.parametrize("ending", [".csv", ".txt", ".parquet"])
def test_compressed(tmp_path, ending):
    table = pd.DataFrame({"a": np.arange(40) * 0.5, "label": ["x", "y"] * 20})
    plain = tmp_path / f"t{ending}"
    table.to_parquet(plain) if ending == ".parquet" else table.to_csv(plain, index=False)
    zipped = tmp_path / f"u{ending}.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    archive = tmp_path / "v.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(plain, f"folder/{plain.name}")
        file.writestr("__MACOSX/folder/._x.csv", "")
        file.writestr("README.md", "about")
    for path in (plain, zipped, archive):
        data = load(str(path), "label")
        assert data.x["a"].tolist() == table["a"].tolist()
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("other.csv", "a,b")
    with pytest.raises(InputError, match=r"has to hold one table .* but holds .*other\.csv"):
        load(str(archive), "label")


def test_table_endings():
    assert table_ending("a.CSV") == ".csv"
    assert table_ending("a.xlsx") == ".xlsx"
    assert table_ending("a.parquet.gz") == ".parquet"
    assert [table_ending(n) for n in ("a.xls", "a.json", "a", "a.tar.gz")] == [None] * 4


@pytest.mark.parametrize("ending", [".xls", ".json", ".sav", ".pkl", ".tar.gz"])
def test_other_endings_are_refused_by_name(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_text("x")
    with pytest.raises(InputError, match=rf"unknown ending, '\{ending}'; use \.csv, .*--data"):
        load(str(path), "y")


def test_spreadsheets(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["when", "price", "label"])
    for i in range(30):
        sheet.append(
            [pd.Timestamp(2020, 1, i + 1).to_pydatetime(), "$5" if i else 2.5, "ab"[i % 2]]
        )
    book.create_sheet("more").append(["x"])
    path = tmp_path / "t.xlsx"
    book.save(path)
    data = load(str(path), "label")
    assert data.classes == ["a", "b"]
    assert data.x["price"][:2].tolist() == [2.5, 5.0]
    assert data.x["when (days since 1970)"][:2].tolist() == [18262, 18263]
    assert "Of 2 sheets the first, 'Sheet', was read" in " ".join(data.notes)


def test_spreadsheets_without_openpyxl_say_what_to_install(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise ImportError("Missing optional dependency 'openpyxl'")

    monkeypatch.setattr(pd, "ExcelFile", missing)
    path = tmp_path / "t.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(
        InputError, match=r"needs openpyxl: pip install 'thinned\[excel\]'; or save it as"
    ):
        load(str(path), "y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decimal": ";"}, "--decimal has to be . or ,"),
        ({"sep": "ab"}, "--sep has to be one character"),
        ({"sep": '"'}, "--sep has to be one character"),
        ({"encoding": "utf-99"}, "--encoding 'utf-99' is not known"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Reading(**options)


def test_options_without_effect_are_refused(tmp_path):
    table = pd.DataFrame({"a": np.arange(40), "label": ["x", "y"] * 20})
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"--sep is for text files .* a Parquet file; leave out"):
        load(str(tmp_path / "t.parquet"), "label", reading=Reading(sep=";"))
    with pytest.raises(InputError, match=r"--encoding is for text files .* handwritten digits"):
        load(None, reading=Reading(encoding="utf-8"))


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match=r"it holds bytes of 0, so it is no text.*--encoding"):
        read(path)
