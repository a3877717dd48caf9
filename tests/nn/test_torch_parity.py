"""What torch's own tests ask of its dropout, asked of our layers and functions of these names."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned.functional as ours_functional
import thinned.nn as ours

NAMES = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
SHAPES = {
    "Dropout": [(), (0,), (5,), (3, 4), (2, 3, 4, 5)],
    "Dropout1d": [(3, 4), (2, 3, 4)],
    "Dropout2d": [(2, 3, 4, 5)],
    "Dropout3d": [(3, 2, 2, 2), (2, 3, 2, 2, 2)],
    "AlphaDropout": [(5,), (3, 4), (2, 3, 4, 5)],
    "FeatureAlphaDropout": [(2, 3), (2, 3, 4), (2, 3, 4, 5)],
}
FUNCTIONS = {
    "Dropout": "dropout",
    "Dropout1d": "dropout1d",
    "Dropout2d": "dropout2d",
    "Dropout3d": "dropout3d",
    "AlphaDropout": "alpha_dropout",
    "FeatureAlphaDropout": "feature_alpha_dropout",
}
CASES = [(name, shape) for name in NAMES for shape in SHAPES[name]]
# alpha' of Klambauer et al. 2017 and the affine map that restores mean 0 and variance 1
ALPHA = -1.7580993408473766


@pytest.mark.parametrize(("name", "shape"), CASES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_results_have_the_values_that_torch_can_give(name, shape, p):
    """Each element is one of the two values that torch's function gives; shape, dtype and strides
    are those of torch, and the gradient is the factor that was applied.
    """
    torch.manual_seed(0)
    x = torch.rand(shape) + 0.5
    x.requires_grad_()
    y = getattr(ours, name)(p)(x)
    theirs = getattr(nn, name)(p)(x)
    assert (y.shape, y.dtype, y.stride()) == (theirs.shape, theirs.dtype, theirs.stride())
    if p == 0.0:
        torch.testing.assert_close(y, x)
    elif "Alpha" in name and p < 1:
        q = 1 - p
        a = (q + ALPHA**2 * q * p) ** -0.5
        b = -a * p * ALPHA
        kept, dropped = a * x + b, torch.full_like(x, a * ALPHA + b)
        near = torch.isclose(y, kept, atol=1e-5) | torch.isclose(y, dropped, atol=1e-5)
        assert near.all()
    else:
        scale = 0.0 if p == 1 else 1 / (1 - p)
        near = torch.isclose(y, x * scale) | (y == 0)
        assert near.all()
        torch.testing.assert_close(theirs if p == 1 else y, y)
    if y.numel():
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.isfinite(gradient).all()
        if "Alpha" not in name:
            torch.testing.assert_close(gradient * x, y)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_evaluation_inplace_and_the_function_agree(name, shape):
    x = torch.rand(shape)
    assert torch.equal(getattr(ours, name)(0.5).eval()(x), x)
    function = getattr(ours_functional, FUNCTIONS[name])
    assert torch.equal(function(x, 0.5, False), x)
    written = x.clone()
    torch.manual_seed(1)
    y = getattr(ours, name)(0.5, inplace=True)(written)
    torch.manual_seed(1)
    again = getattr(ours, name)(0.5)(x)
    assert y is written
    torch.testing.assert_close(y, again)


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_dropped_whole_where_torch_drops_them_whole(name):
    shape = {"Dropout1d": (8, 16, 5), "Dropout3d": (8, 16, 2, 3, 2)}.get(name, (8, 16, 3, 4))
    torch.manual_seed(0)
    x = torch.ones(shape)
    for layer in (getattr(ours, name)(0.5), getattr(nn, name)(0.5)):
        y = layer(x).flatten(2)
        whole = bool((y == y[..., :1]).all())
        assert whole == (name not in ("Dropout", "AlphaDropout"))


@pytest.mark.parametrize("name", ["Dropout", "Dropout2d"])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_the_share_of_zeros_and_the_mean(name, p):
    """Of 40,000 draws the share of zeros is within 4.9 standard errors of p (alpha 1e-6)."""
    torch.manual_seed(0)
    x = torch.ones(200, 200, 1, 1) if name == "Dropout2d" else torch.ones(200, 200)
    y = getattr(ours, name)(p)(x)
    error = math.sqrt(p * (1 - p) / 40_000)
    assert abs((y == 0).double().mean().item() - p) < 4.9 * error
    assert abs(y.double().mean().item() - 1) < 4.9 * error / (1 - p)


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_alpha_dropout_keeps_mean_and_deviation(p):
    """Of 250,000 standard normal numbers: both within 0.02, as torch's test asks."""
    torch.manual_seed(0)
    y = ours.AlphaDropout(p)(torch.randn(500, 500))
    assert abs(y.mean().item()) < 0.02
    assert abs(y.std().item() - 1) < 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtype):
    torch.manual_seed(0)
    x = torch.ones(4, 6, 4, 4, dtype=dtype)
    x = x.unsqueeze(-1) if name == "Dropout3d" else x.flatten(2) if name == "Dropout1d" else x
    y = getattr(ours, name)(0.5)(x)
    assert y.dtype == dtype
    assert len(y.unique()) == 2


def accepts(module, name, shape, p):
    """Whether a layer takes a rate and a shape, and the kind of error otherwise."""
    try:
        getattr(module, name)(p)(torch.ones(shape))
    except (ValueError, RuntimeError) as error:
        return type(error).__mro__[-3] if isinstance(error, RuntimeError) else ValueError
    return True


@pytest.mark.filterwarnings("ignore")  # of ranks that torch deprecates
@pytest.mark.parametrize("name", NAMES)
def test_the_same_ranks_and_rates_are_refused(name):
    for rank, p in itertools.product(range(7), (-0.1, 0.5, 1.1)):
        ours_, theirs = (accepts(m, name, (2,) * rank, p) for m in (ours, nn))
        assert (ours_ is True) == (theirs is True), (rank, p, ours_, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_representations_and_states(name):
    layer, theirs = getattr(ours, name)(0.3), getattr(nn, name)(0.3)
    assert repr(layer) == repr(theirs)
    assert layer.state_dict() == theirs.state_dict()
    assert isinstance(layer, getattr(nn, name))
    layer.p = 0.0
    x = torch.rand(SHAPES[name][-1])
    assert torch.equal(layer.train()(x), x)


def test_the_functions_have_the_signatures_of_torch():
    x = torch.rand(2, 3, 4, 4)
    for name in FUNCTIONS.values():
        if name in ("dropout1d", "dropout3d"):
            continue
        for arguments in ((0.0,), (0.0, True), (0.0, True, False)):
            torch.testing.assert_close(
                getattr(ours_functional, name)(x, *arguments), getattr(F, name)(x, *arguments)
            )
