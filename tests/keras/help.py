"""What the tests of the Keras face share."""

from __future__ import annotations

import numpy as np
from scipy import stats

import keras

ALPHA = 1e-3 / 40  # of each test of a file; there are fewer than 40


def array(t):
    return np.asarray(keras.ops.convert_to_numpy(t))


def unbuilt(config):
    """Without the shapes that inner layers were built for: a copy is not built."""
    if not isinstance(config, dict):
        return config
    return {name: unbuilt(value) for name, value in config.items() if name != "build_config"}


def same_law(ours, theirs):
    """Of rows that take few values: the same ones, as often."""
    rows, which = np.unique(np.concatenate((ours, theirs)).round(4), axis=0, return_inverse=True)
    counts = np.stack([np.bincount(w, minlength=len(rows)) for w in np.split(which.ravel(), 2)])
    assert (counts.min(0) > 0).all()
    assert stats.chi2_contingency(counts).pvalue > ALPHA
    return len(rows)
