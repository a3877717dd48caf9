"""Blocks of a map: every set of seeds by hand, and the fraction that is dropped."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")

from thinned.algebra.per import block_fraction, seed_rate  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array  # noqa: E402


def test_enumerated_blocks():
    """Blocks of two on a map of four: every set of seeds, grown by hand."""
    p, size, n = 0.4, 2, 4
    gamma = seed_rate(p, (1, size, 1), (1, n, 1))
    expected = np.zeros(2**n)
    for seeds in itertools.product((0, 1), repeat=n - size + 1):
        dropped = [
            any(seeds[j] for j in range(max(0, i - size + 1), min(i, n - size) + 1))
            for i in range(n)
        ]
        code = sum((not f) << i for i, f in enumerate(dropped))
        expected[code] += math.prod(gamma if s else 1 - gamma for s in seeds)
    y = array(L.DropBlock1D(p, size, seed=1)(np.ones((20_000, n, 1), "float32"), training=True))[
        ..., 0
    ]
    counts = np.bincount((y > 0) @ [1, 2, 4, 8], minlength=16)
    assert not counts[expected == 0].any()
    assert stats.chisquare(counts[expected > 0], 20_000 * expected[expected > 0]).pvalue > ALPHA
    assert y.mean() == pytest.approx(1.0, abs=1e-5)  # divided by the fraction that was kept


def test_blocks_drop_the_fraction_of_their_definition():
    p, extent = 0.1, (1, 7, 7, 1)
    y = array(L.DropBlock2D(p, 7, seed=0)(np.ones((100, 14, 14, 8), "float32"), training=True))
    planes = (y == 0).mean((1, 2)).ravel()
    expected = block_fraction(seed_rate(p, extent, (1, 14, 14, 1)), extent, (1, 14, 14, 1))
    assert stats.ttest_1samp(planes, expected).pvalue > ALPHA
