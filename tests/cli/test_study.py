"""``thinned study``: help; for bad input one clear sentence, exit status 2 and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import thinned

from .common import call


def test_help_names_every_option(capsys, monkeypatch):
    code, out, _ = call(capsys, monkeypatch, "study", "--help")
    assert code == 0
    options = (
        "data target test drop keep sep decimal encoding na task model quick full methods folds "
        "repeats metric class-weight groups "
        "time epochs seed rows budget jobs out resume "
        "report-only"
    )
    for option in options.split():
        assert f"--{option}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.csv"], "data 'nowhere.csv' does not exist"),
        (["--methods", "dropuot"], "unknown method 'dropuot'; did you mean"),
        (["--model", "mpl"], "unknown model 'mpl'; did you mean 'mlp'"),
        (["--model", "no_such_thing:net"], "raised ModuleNotFoundError"),
        (
            ["--model", "cnn", "--data", "{table}", "--target", "y", "--keep", "a"],
            "model 'cnn' needs images",
        ),
        (["--data", "{table}", "--target", "yy"], "target 'yy' is not a column"),
        (["--data", "{table}", "--target", "y", "--drop", "b"], "--drop 'b' is not a column"),
        (["--data", "{table}", "--target", "y", "--drop", "a"], "no column besides the target"),
        (["--data", "{table}", "--target", "y", "--keep", "c"], "--keep 'c' is not a column"),
        (["--data", "{table}", "--target", "y", "--test", "no.csv"], "--test 'no.csv' has to be"),
        (["--data", "{table}", "--target", "y", "--decimal", "x"], "--decimal has to be . or ,"),
        (["--data", "{table}", "--target", "y", "--sep", "ab"], "--sep has to be one character"),
        (["--data", "{table}", "--target", "y", "--encoding", "u9"], "--encoding 'u9' is not"),
        (["--sep", ";"], "--sep is for text files such as .csv, but the data are"),
        (["--drop", "a"], "--drop is for tables, but the data are the handwritten digits"),
        (["--task", "clustering"], "--task has to be classification or regression"),
        (["--folds", "1"], "--folds has to be at least 2"),
        (["--folds", "900"], "900 folds need at least 9000 rows"),
        (["--quick", "--full"], "--quick and --full exclude each other"),
        (["--budget", "-1"], "budget has to be above 0 minutes"),
        (["--jobs", "0"], "jobs has to be at least 1"),
        (["--rows", "0"], "rows has to be at least 1"),
        (["--epochs", "0"], "epochs has to be at least 1, but got 0"),
        (["--seed", "-3"], "--seed has to be at least 0"),
        (["--seed", "4294967295"], "--seed has to be at most 2147483647"),
        (["--methods", ","], "--methods has to name methods, such as dropout,l2, but got ','"),
        (["--methods", ""], "--methods has to name methods"),
        (["--data", ""], "data is an empty string"),
        (["--out", ""], "out has to be the path of a folder, but got ''"),
        (["--out", "", "--report-only"], "out has to be the path of a folder, but got ''"),
        (["--target", "y"], "--target is for tables"),
        (["--task", "regression"], "--task regression needs a numeric target"),
        (["--resume"], "nothing to resume"),
        (["--report-only"], "is .* the folder of a study"),
        (["--out", "{table}"], "cannot be written"),
        (["--fold", "3"], "No such option"),
        (["--seed", "many"], "a valid integer"),
    ],
)
def test_bad_input(capsys, monkeypatch, tmp_path, arguments, message):
    table = tmp_path / "t.csv"
    table.write_text("a,y\n" + "\n".join(f"{i / 2},{i % 2}" for i in range(100)))
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, monkeypatch, "study", *(a.format(table=table) for a in arguments))
    import re

    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", err).split())
    assert code == 2, text
    assert re.search(message, text), text
    assert "Traceback" not in err + out
    assert not (tmp_path / "thinned-study").exists() or not list(
        (tmp_path / "thinned-study" / "runs").glob("*")
    )


def test_study_from_the_shell(tmp_path, capsys, monkeypatch):
    """In a process of its own: table, verdict and files; --report-only then prints the same."""
    arguments = [
        sys.executable,
        "-m",
        "thinned",
        "study",
        "--quick",
        "--methods",
        "dropout",
        "--rows",
        "120",
        "--epochs",
        "2",
    ]
    arguments += ["--folds", "2", "--jobs", "1", "--out", str(tmp_path / "o")]
    environment = os.environ | {"COLUMNS": "140"}
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=200, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no regularizer" in done.stdout
    assert "difference (95 %)" in done.stdout
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "report.html",
        "results.parquet",
        "policy.json",
        "study.json",
        "runs",
        ".lock",
    }
    (tmp_path / "o" / "report.html").unlink()
    monkeypatch.setenv("COLUMNS", "140")
    code, out, err = call(
        capsys, monkeypatch, "study", "--report-only", "--out", str(tmp_path / "o")
    )
    assert code == 0, err
    assert out == done.stdout
    assert (tmp_path / "o" / "report.html").exists()


def test_python_api(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    result = thinned.study(
        (x, (x[:, 0] > 0).astype(int)),
        level="quick",
        methods=["dropout"],
        folds=2,
        epochs=2,
        jobs=1,
        out=tmp_path / "o",
    )
    assert result.report.exists()
    assert str(result).startswith(result.verdict.headline)
    assert {"method", "test_error"} <= set(result.table)
    with pytest.raises(thinned.InputError, match="unknown level 'slow'"):
        thinned.study(level="slow")
    with pytest.raises(thinned.InputError, match="data has to be a path"):
        thinned.study(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 2.5}, "folds has to be a whole number, but got 2.5"),
        ({"epochs": "1"}, "epochs has to be a whole number, but got '1'"),
        ({"seed": None}, "seed has to be a whole number, but got None"),
        ({"rows": 60.5}, "rows has to be a whole number"),
        ({"jobs": True}, "jobs has to be a whole number"),
        ({"budget": "1"}, "budget has to be a number"),
        ({"methods": "dropout"}, "methods has to be a list of names"),
        ({"methods": None}, "methods has to be a list of names"),
        ({"methods": [[]]}, r"unknown method \[\]"),
        ({"model": None}, "model has to be a name"),
        ({"level": []}, r"unknown level \[\]"),
        ({"out": None}, "out has to be the path of a folder"),
        ({"task": "bad"}, "task has to be 'classification', 'regression' or None"),
        ({"target": 3}, "target has to be the name of a column, but got 3"),
        ({"target": "y", "data": ([[1], [2]], [0, 1])}, "target is for tables"),
        ({"drop": "a"}, "drop has to be a list"),
        ({"na": 3}, "na has to be a list"),
        ({"test": 3}, "test has to be a path, a DataFrame or None"),
        ({"drop": ["a"], "data": ([[1], [2]], [0, 1])}, "drop is for tables"),
        ({"decimal": ",", "data": ([[1], [2]], [0, 1])}, "--decimal is for text files"),
        ({"data": ([[1, 2], [3]], [0, 1])}, "x cannot be converted to an array"),
    ],
)
def test_python_api_checks_its_arguments(tmp_path, arguments, message):
    with pytest.raises(thinned.InputError, match=message):
        thinned.study(**{"out": tmp_path / "o", **arguments})
    assert not (tmp_path / "o").exists()


def test_python_api_takes_numpy_numbers_and_columns(tmp_path):
    import numpy as np
    import pandas as pd

    table = pd.DataFrame({0: np.linspace(0, 1, 80), 1: np.arange(80) % 2})
    numbers = {
        "folds": np.int64(2),
        "epochs": np.int8(1),
        "seed": np.int32(3),
        "lr": np.float32(0.01),
        "rows": np.int64(60),
    }
    result = thinned.study(
        table,
        target=1,
        level="quick",
        methods=["dropout"],
        jobs=np.int64(1),
        out=tmp_path / "o",
        **numbers,
    )
    assert result.analysis.header["settings"]["seed"] == 3


def test_what_was_decided_about_a_table_is_printed_before_training(tmp_path, capsys, monkeypatch):
    rows = [
        f"{i},w{i % 9} is a word{i % 7},{'' if i == 3 else i % 2 + 3},{i % 2}" for i in range(90)
    ]
    (tmp_path / "t.csv").write_text("id,text,y,copy\n" + "\n".join(rows))
    monkeypatch.chdir(tmp_path)
    arguments = "--data t.csv --target y --quick --methods dropout --folds 2 --repeats 1 --epochs 1"
    code, _, err = call(capsys, monkeypatch, "study", *arguments.split(), "--jobs", "1")
    assert code == 0, err
    before, _ = err.split("networks to train")
    for text in (
        "t: 89 rows, ",
        "classification of y.",
        "1 rows without a value of y were left out.",
        "y holds 2 distinct values, so this is classification; --task regression overrides that.",
        "Column id was left out: it looks like an index or identifier",
        "Texts (text) became TF-IDF features",
        "warning: Column copy alone determines y in all 89 rows",
    ):
        assert text in before
    from thinned.studies.outputs import finish

    result = finish(tmp_path / "thinned-study")
    assert "1 rows without a value of y were left out." in result.notes
    assert "Column copy alone determines y" in result.warnings[0]
    assert result.columns.to_numpy()[:, :2].tolist() == [
        ["id", "key"],
        ["text", "text"],
        ["copy", "number"],
    ]
    report = result.report.read_text("utf-8")
    for text in (*result.notes, *result.warnings, "left out: index or identifier"):
        assert text.replace("'", "&#39;") in report


def test_warnings_about_the_data_are_python_warnings_without_a_display(tmp_path):
    import numpy as np
    import pandas as pd

    y = np.arange(80) % 2
    table = pd.DataFrame({"a": np.random.default_rng(0).normal(size=80), "b": y, "y": y})
    with pytest.warns(UserWarning, match="Column b alone determines y in all 80 rows"):
        thinned.study(
            table,
            target="y",
            level="quick",
            methods=["dropout"],
            folds=2,
            repeats=1,
            epochs=1,
            jobs=1,
            out=tmp_path / "o",
        )
