"""What the tests of the Keras API share."""

from __future__ import annotations

import copy
import json

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


def again(layer):
    """The layer made again from its configuration, which goes through JSON."""
    config = json.loads(json.dumps(layer.get_config()))
    other = type(layer).from_config(copy.deepcopy(config))
    # Keras's own configurations may hold tuples, of which JSON makes lists; ours hold none.
    assert unbuilt(json.loads(json.dumps(other.get_config()))) == unbuilt(config)
    for name in layer.config_names:
        assert other.get_config()[name] == config[name]
    return other


def same_distribution(ours, theirs):
    """Of rows that take few values: the same ones, as often. Returns how many."""
    rows, which = np.unique(np.concatenate((ours, theirs)).round(4), axis=0, return_inverse=True)
    counts = np.stack([np.bincount(w, minlength=len(rows)) for w in np.split(which.ravel(), 2)])
    assert (counts.min(0) > 0).all()
    assert stats.chi2_contingency(counts).pvalue > ALPHA
    return len(rows)


def outputs(net, model, x):
    """The outputs of a torch network and of a Keras model for an array."""
    import torch

    with torch.no_grad():
        return net(torch.tensor(x)).numpy(), model.predict(x, verbose=0)
