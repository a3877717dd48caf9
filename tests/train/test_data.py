"""Rows that are kept sparse: the same numbers as dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from thinned import InputError, presets
from thinned.train import Recipe, Split, Task, fit_population, rows


def test_networks_on_sparse_rows_equal_those_on_dense_rows():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((80, 12)) < 0.2, rng.normal(size=(80, 12)), 0.0).astype(np.float32)
    y = np.arange(80) % 2
    histories = []
    for convert in (np.asarray, sparse.csr_array, sparse.coo_matrix):
        train, val = rows(convert(x[:60]), y[:60]), rows(convert(x[60:]), y[60:])
        split = Split(Task("classification", 2), train, val)
        recipes = [Recipe(drops=(presets.dropout(p),), epochs=2) for p in (0.1, 0.4)]
        histories.append([t.history for t in fit_population(split, recipes)])
    assert histories[0] == histories[1] == histories[2]


def test_sparse_rows_are_taken_and_checked():
    x = sparse.csr_array(np.diag([1.0, 2.0, 3.0]))
    part = rows(x, np.array([0, 1, 0])).take(torch.tensor([2, 0]))
    assert part.dense_x.tolist() == [[0, 0, 3], [1, 0, 0]]
    assert part.x[1:].tolist() == [[1, 0, 0]]
    assert rows(x, np.array([0, 1, 0])).take(slice(0)).dense_x.shape == (0, 3)
    with pytest.raises(InputError, match="x has 3 rows, but y has 2"):
        rows(x, np.array([0, 1]))
    with pytest.raises(InputError, match="x holds values that are not finite"):
        rows(x * np.float64("nan"), np.array([0, 1, 0]))
