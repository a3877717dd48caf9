"""The cache of results: what makes a result stale, and what a broken or missing cache does."""

from __future__ import annotations

import json

import pytest

from thinned.checks.static import cache as caching
from thinned.checks.static import checked, run

WRONG = """\
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """(a folder with files, a list to which every file is added that is really checked)."""
    monkeypatch.setenv("THINNED_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "wrong.py").write_text(WRONG)
    (source / "right.py").write_text("import torch\n")
    (source / "broken.py").write_text("def f(:\n")
    seen = []
    original = run._check
    monkeypatch.setattr(run, "_check", lambda t, n, c: (seen.append(n), original(t, n, c))[1])
    return source, seen


def test_an_unchanged_tree_is_not_checked_again(tree):
    source, seen = tree
    first = checked(source, cache=True)
    assert len(seen) == 3
    second = checked(source, cache=True)
    assert len(seen) == 3
    assert second == first == checked(source)
    assert second[0].unchecked == first[0].unchecked
    assert second[0][0].changes == first[0][0].changes != ()


def test_content_rules_and_the_selection_make_a_result_stale(tree, monkeypatch):
    source, seen = tree
    checked(source, cache=True)
    (source / "wrong.py").write_text(WRONG.replace("0.5)", "0.5, training=self.training)"))
    assert len(checked(source, cache=True)[0]) == 0
    assert len(seen) == 4
    checked(source, cache=True, select=["L2"])
    assert len(seen) == 7
    monkeypatch.setattr(caching, "version", lambda: "other rules")
    checked(source, cache=True)
    assert len(seen) == 10


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_broken_cache_counts_as_empty(tree, text):
    source, seen = tree
    checked(source, cache=True)
    (stored,) = (source.parent / "cache").iterdir()
    assert set(json.loads(stored.read_text())) == {"version", "files"}
    stored.write_text(text)
    assert len(checked(source, cache=True)[0]) == 1
    assert len(seen) == 6


def test_a_folder_that_cannot_be_written_is_left_alone(tree, monkeypatch):
    source, _ = tree
    blocked = source.parent / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("THINNED_CACHE", str(blocked / "cache"))
    assert len(checked(source, cache=True)[0]) == 1


def test_processes_find_the_same(tmp_path):
    for index in range(40):
        (tmp_path / f"net_{index:02}.py").write_text(WRONG + "\n" * index)
    assert checked(tmp_path, jobs=2) == checked(tmp_path)
    assert len(checked(tmp_path, jobs=2)[0]) == 40
