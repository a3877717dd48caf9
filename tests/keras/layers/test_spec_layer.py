"""One spec, one noise distribution: closed forms, and the same distribution as the torch API."""

from __future__ import annotations

import json

import numpy as np
import pytest

keras = pytest.importorskip(
    "keras", reason="Keras is not installed: pip install 'thinned[keras]' and a backend"
)
stats = pytest.importorskip("scipy.stats")
torch = pytest.importorskip("torch")

from thinned import functional as F  # noqa: E402
from thinned import presets  # noqa: E402
from thinned.algebra import Bernoulli, Classic, Drop, moments  # noqa: E402
from thinned.algebra.per import Block  # noqa: E402
from thinned.engines import keras as engine  # noqa: E402
from thinned.keras import layers as L  # noqa: E402

from ..help import ALPHA, array  # noqa: E402

SPECS = [
    presets.dropout(0.3),
    presets.dropout(0.3, "classic"),
    presets.gaussian_dropout(0.4),
    presets.uniform_dropout(0.3),
    presets.alpha_dropout(0.2),
    Drop(Bernoulli(0.25), per="b", of="b *", scale=Classic()),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda p: p.name or "own")
def test_moments_are_the_closed_forms(spec):
    v, n = 1.5, 40_000
    y = (
        array(L.SpecDropout(spec, seed=5)(np.full((n, 1), v, "float32"), training=True))
        .astype("float64")
        .ravel()
    )
    closed_form = moments(spec)
    mean, var = closed_form.mean(v), closed_form.var(v)
    assert stats.ttest_1samp(y, mean).pvalue > ALPHA
    squares = (y - mean) ** 2
    assert stats.ttest_1samp(squares, var).pvalue > ALPHA
    if isinstance(spec.scale, Classic):
        assert float(array(L.SpecDropout(spec)(np.full((1, 1), v)))[0, 0]) == pytest.approx(
            mean, rel=1e-6
        )


@pytest.mark.parametrize("format_", ["channels_last", "channels_first"])
def test_draws_are_shared_as_the_layout_says(format_):
    layer = L.SpecDropout(presets.spatial_dropout(0.5), seed=0, data_format=format_)
    y = array(layer(np.ones((4, 6, 5, 6), "float32"), training=True))
    y = y if format_ == "channels_first" else np.moveaxis(y, -1, 1)
    assert (y == y[:, :, :1, :1]).all()
    assert 0 < (y[:, :, 0, 0] == 0).mean() < 1


def test_any_spec_is_a_layer():
    spec = Drop(Bernoulli(0.3), per="b d", of="b t d", scale=Classic())
    layer = L.SpecDropout(spec, seed=0)
    y = array(layer(np.ones((5, 6, 7), "float32"), training=True))
    assert (y == y[:, :1]).all()
    layer.rate = 0.6
    again = L.SpecDropout.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.base_spec == spec.at(0.6)
    np.testing.assert_allclose(array(layer(np.ones((1, 2, 3)))), 0.4, rtol=1e-6)


def test_channels_first_specs_keep_their_layout_in_files():
    layer = L.SpecDropout(presets.spatial_dropout(0.5), seed=1, data_format="channels_first")
    again = L.SpecDropout.from_config(json.loads(json.dumps(layer.get_config())))
    x = np.ones((4, 6, 5), "float32")
    np.testing.assert_array_equal(array(again(x, training=True)), array(layer(x, training=True)))


METHODS = {name: row for name, row in presets.CATALOG.items() if callable(row.make)}


METHODS_ALPHA = 1e-3 / (3 * len(METHODS))


MANY = 6000


def drawn(spec, axes):
    """(from Keras, from torch): the factor, or the filled value, of 1.5 on a tensor of ``axes``."""
    x = np.full(axes, 1.5, "float32")
    layer = L.SpecDropout(spec, seed=11, data_format="channels_first")
    return array(layer(x, training=True)), F.drop(torch.tensor(x), spec).numpy()


def shared(y):
    """Along which axes all values are equal."""
    return tuple(bool((y == y.take([0], axis)).all()) for axis in range(y.ndim))


def test_every_spec_is_here():
    assert len(METHODS) == 15


@pytest.mark.parametrize("name", METHODS)
def test_the_same_point_has_the_same_distribution_in_both_faces(name):
    """Shared axes are equal, and so are the distributions of values (chi-squared; Kolmogorov and
    Smirnov where continuous).
    """
    size = {"block_size": 3} if name == "drop_block" else {}
    spec = presets.make(name, **{METHODS[name].rate_name: 0.3}, **size)
    axes = {"b *": (4, 5), "n *": (4, 5), "e *": (4, 5), "b c *": (4, 3, 6, 5)}.get(
        spec.of, (4, 3, 5)
    )
    draws, _ = engine.mask_shape(axes, spec)
    long = next(i for i, n in enumerate(draws) if n > 1)  # an axis of independent draws, made long
    ours, theirs = drawn(spec, (*axes[:long], MANY, *axes[long + 1 :]))
    assert shared(ours) == shared(theirs)
    if isinstance(spec.per, Block):
        a, b = ((y == 0).mean((1, 2, 3)) for y in (ours, theirs))  # the dropped fraction of a map
        np.testing.assert_allclose([ours.mean(), theirs.mean()], 1.5, rtol=1e-5)
    else:
        a, b = (np.moveaxis(y, long, 0).reshape(MANY, -1)[:, 0] for y in (ours, theirs))
    values = np.unique(np.concatenate((a, b)).round(4))
    if len(values) > MANY // 4:
        assert stats.ks_2samp(a, b).pvalue > METHODS_ALPHA
        return
    counts = np.array([[(y.round(4) == v).sum() for v in values] for y in (a, b)])
    common = counts.sum(0) > 20
    assert common.any()
    assert stats.chi2_contingency(counts[:, common]).pvalue > METHODS_ALPHA


@pytest.mark.parametrize("name", METHODS)
def test_evaluation_is_the_same_in_both_frameworks(name):
    spec = presets.make(name, **{METHODS[name].rate_name: 0.3})
    x = np.random.default_rng(0).normal(size=(2, 3, 9)).astype("float32")
    y = array(L.SpecDropout(spec, data_format="channels_first")(x))
    np.testing.assert_allclose(y, F.drop(torch.tensor(x), spec, mode="mean").numpy(), rtol=1e-6)
