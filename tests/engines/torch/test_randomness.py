"""Masks as random bits: even, and independent of neighbors, layers, calls, steps, ids and seeds.

Seeds are fixed, so a result never changes. The alpha of each test is 1e-4, divided by the number of
comparisons inside it (Bonferroni).
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from thinned import functional as F
from thinned import presets
from thinned.algebra import Key
from thinned.algebra.key import stream_of

ALPHA = 1e-4


def bits(key: Key, p: float = 0.5, rows: int = 64, elements: int = 1 << 14) -> np.ndarray:
    """Return 1 for dropped and 0 for kept elements, [rows, elements]."""
    return (~F.mask(presets.dropout(p), (rows, elements), key)).numpy().astype(np.int8)


def assert_uncorrelated(a: np.ndarray, b: np.ndarray, comparisons: int = 1) -> None:
    a, b = (v.astype(float).ravel() - v.mean() for v in (a, b))
    z = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()) * math.sqrt(len(a))
    assert 2 * stats.norm.sf(abs(z)) > ALPHA / comparisons


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_pairs_and_fours_of_neighbors_are_independent(p):
    """Chi-square on the patterns of 2 and 4 neighboring elements, and of 2 neighboring samples."""
    drawn = bits(Key(11, stream_of("a")), p)
    samples = drawn.reshape(32, 2, -1).transpose(0, 2, 1)
    for block in (drawn.reshape(-1, 2), drawn.reshape(-1, 4), samples.reshape(-1, 2)):
        width = block.shape[1]
        codes = (block * (1 << np.arange(width))).sum(1)
        ones = np.array([bin(c).count("1") for c in range(1 << width)])
        expected = len(codes) * p**ones * (1 - p) ** (width - ones)
        assert (
            stats.chisquare(np.bincount(codes, minlength=1 << width), expected).pvalue > ALPHA / 3
        )


def test_runs():
    """The number of runs in a row of 2^20 bits (Wald and Wolfowitz)."""
    drawn = bits(Key(12), rows=1, elements=1 << 20)[0]
    n1 = int(drawn.sum())
    n0 = len(drawn) - n1
    runs = 1 + int((drawn[1:] != drawn[:-1]).sum())
    mean = 1 + 2 * n0 * n1 / len(drawn)
    variance = (mean - 1) * (mean - 2) / (len(drawn) - 1)
    assert 2 * stats.norm.sf(abs(runs - mean) / math.sqrt(variance)) > ALPHA


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 8, 16, 64, 512, 1024])
def test_elements_are_uncorrelated(lag):
    drawn = bits(Key(13))
    assert_uncorrelated(drawn[:, :-lag], drawn[:, lag:], 10)


def test_layers_calls_steps_samples_and_seeds_are_uncorrelated():
    base = Key(5, stream_of("layer1.drop"), 0, 0)
    others = [
        base,
        Key(6, base.stream),
        Key(5 + 2**32, base.stream),
        Key(5, stream_of("layer2.drop")),
        Key(5, base.stream, call=1),
        Key(5, base.stream, step=1),
        Key(5, base.stream, step=2**31),
        Key(5, base.stream, samples=torch.arange(64) + 64),
        Key(5, base.stream, samples=torch.arange(64) + 2**32),
    ]
    drawn = [bits(key) for key in others]
    pairs = list(combinations(range(len(drawn)), 2))
    for i, j in pairs:
        assert_uncorrelated(drawn[i], drawn[j], len(pairs))


def test_neighboring_steps_and_samples():
    """One element over 1024 steps, and over 1024 samples of two ranks.

    These are as independent as elements of one mask.
    """
    over_steps = np.stack([bits(Key(7, step=s), rows=1, elements=512)[0] for s in range(1024)])
    assert_uncorrelated(over_steps[:-1], over_steps[1:], 3)
    ranks = [
        bits(Key(7, samples=torch.arange(512) + 512 * r), rows=512, elements=512) for r in range(2)
    ]
    assert_uncorrelated(*ranks, 3)
    assert_uncorrelated(ranks[0][:-1], ranks[0][1:], 3)


def test_bytes_are_even():
    drawn = np.packbits(bits(Key(17), rows=256))
    assert stats.chisquare(np.bincount(drawn, minlength=256)).pvalue > ALPHA


def test_low_halves_are_as_good_as_high_ones():
    """Over all words, each of the 32 bits is even and independent of the others.

    The low half of a word decides where the high half ties.
    """
    from thinned.engines import numpy as engine

    words = engine.words(Key(23, 4), 64, 4096).ravel()
    each = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.int8)
    for bit in range(32):
        assert stats.binomtest(int(each[:, bit].sum()), len(each)).pvalue > ALPHA / 32
    for bit in range(16):
        assert_uncorrelated(each[:, bit], each[:, bit + 16], 16)


def test_normals_are_normal():
    x = torch.ones(64, 4096, dtype=torch.float64)
    noise = ((F.drop(x, presets.gaussian_dropout(0.5), key=Key(3)) - 1).numpy()).ravel()
    assert stats.kstest(noise, "norm").pvalue > ALPHA / 2
    assert_uncorrelated(noise[:-1], noise[1:], 2)
