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
        "data target task model quick full methods folds repeats metric class-weight groups "
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
        (["--model", "cnn", "--data", "{table}", "--target", "y"], "model 'cnn' needs images"),
        (["--data", "{table}", "--target", "yy"], "target 'yy' is not a column"),
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
    table.write_text("a,y\n" + "\n".join(f"{i},{i % 2}" for i in range(100)))
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
