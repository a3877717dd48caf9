"""Targets: labels are labels, and the guessed task is reported."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from thinned import InputError
from thinned.studies.targets import read_target


def read(values, kind=None):
    notes: list[str] = []
    found = read_target(pd.Series(values), kind, "y", notes)
    return found, " ".join(notes)


def test_texts_that_often_mean_missing_are_classes():
    labels = ["None", "NA", "null", "nan", "?"] * 6
    found, said = read([*labels, "", None, " "])
    assert found.classes == ["?", "NA", "None", "nan", "null"]
    assert found.rows.tolist() == list(range(30))
    assert [found.classes[i] for i in found.y] == labels
    assert "3 rows without a value of y were left out" in said


def test_labels_that_print_alike_are_merged_with_a_note():
    found, said = read(["yes", "yes ", "no"] * 10)
    assert (found.classes, np.bincount(found.y).tolist()) == (["no", "yes"], [10, 20])
    assert "'yes' and 'yes ' of y print alike and are one class, 'yes'" in said
    assert "print alike" not in read(["yes", "no"] * 10)[1]
    found, said = read([0, "0", 1] * 10)
    assert (found.classes, np.bincount(found.y).tolist()) == (["0", "1"], [20, 10])


def test_texts_of_equal_numbers_are_one_class_but_codes_are_not():
    found, said = read(["1", "1.0", "2"] * 10)
    assert (found.classes, np.bincount(found.y).tolist()) == (["1", "2"], [20, 10])
    assert "Texts of y with equal values are one class: '1'" in said
    assert read(["01", "1"] * 10)[0].classes == ["01", "1"]
    assert read(["10", "9", "2"] * 10)[0].classes == ["2", "9", "10"]


def test_the_guessed_task_is_said_with_the_option_that_changes_it():
    found, said = read(["3", "4", "5"] * 10)
    assert found.kind == "classification"
    assert "3 distinct values, so this is classification; --task regression overrides that" in said
    assert "Classes: 3 (10), 4 (10), 5 (10)." in said
    found, said = read([f"{i}.5" for i in range(40)])
    assert found.kind == "regression"
    assert "so this is regression; --task classification overrides that" in said
    _, said = read(["a", "b"] * 10)
    assert "so this is classification." in said
    assert "--task" not in said
    assert read(["3", "4", "5"] * 10, "regression")[0].y[:3].tolist() == [3.0, 4.0, 5.0]
    assert "--task" not in read(["a", "b"] * 10, "classification")[1]


def test_numbers_as_texts_are_values():
    found, said = read([f"${i:,}.50" for i in range(900, 1100)])
    assert (found.kind, found.y[0], found.y[-1]) == ("regression", 900.5, 1099.5)
    found, said = read([*map(str, range(100)), "?", "unknown"])
    assert (found.kind, len(found.y), found.rows[-1]) == ("regression", 100, 99)
    assert "2 rows were left out where y is '?', 'unknown'" in said
    with pytest.raises(InputError, match=r"regression needs a target of numbers, .* holds 'many'"):
        read([*map(str, range(100)), "many"], "regression")


def test_number_types_and_booleans():
    assert read([True, False] * 10)[0].classes == ["False", "True"]
    assert read(pd.array([1, None, 2] * 10, dtype="Int64"))[0].classes == ["1", "2"]
    assert read(pd.Categorical(["b", "a"] * 10))[0].classes == ["a", "b"]
    assert read(np.arange(40) / 2)[0].kind == "regression"
