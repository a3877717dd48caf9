"""DropConnect: its closed forms against samples, its gradients at zero variance, and what it
refuses.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import thinned
from thinned import InputError, nn, presets
from thinned.algebra import Bernoulli, Classic, Constant, Drop, KeptFraction, MomentMatch
from thinned.functional.activations import rectified_mean


def drop_connect(p=0.5, dtype=torch.float32, bias=True, **settings):
    torch.manual_seed(0)
    return nn.DropConnect(torch.nn.Linear(6, 4, bias=bias).to(dtype), p, **settings)


@pytest.mark.parametrize("spec", [presets.drop_connect(0.3), presets.drop_connect(0.3, "inverted")])
def test_moments_are_those_of_exact_samples(spec):
    layer, x = drop_connect(spec, torch.float64), torch.randn(1, 6, dtype=torch.float64)
    drawn = layer(x.expand(40_000, 6))
    mean, var = layer.moments(x)
    torch.testing.assert_close(drawn.mean(0), mean[0], rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.var(0), var[0], rtol=0.05, atol=0)
    expected = F.relu(mean + var.sqrt() * torch.randn(40_000, 4, dtype=torch.float64)).mean(0)
    torch.testing.assert_close(rectified_mean(mean, var.sqrt())[0], expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", [F.relu, torch.tanh])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_finite_where_the_variance_is_zero(dtype, act, bias):
    """A row of zeros without a bias; and a variance close to zero with a mean that is not."""
    layer = drop_connect(0.5, dtype, bias, activation=act, inference="moments", sampling="moments")
    x = torch.zeros(3, 6, dtype=dtype)
    x[1], x[2, 0] = 1e-7, 100.0
    x.requires_grad_()
    for training in (False, True):
        y = layer.train(training)(x)
        y.float().sum().backward()
        assert y.isfinite().all()
        assert all(t.grad.isfinite().all() for t in (x, *layer.parameters()))


def test_zero_variance_is_the_activation_of_the_mean():
    mean = torch.tensor([-7.0, -1e-20, 0.0, 3.0, 1e6], requires_grad=True)
    for std in (0.0, 1e-30, 1e-15):
        y = rectified_mean(mean, torch.full((5,), std))
        torch.testing.assert_close(y, mean.relu())
        assert torch.autograd.grad(y.sum(), mean)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zeros_stay_zeros(dtype):
    assert (
        drop_connect(0.5, dtype, bias=False, sampling="moments")(torch.zeros(5, 6, dtype=dtype))
        == 0
    ).all()


@pytest.mark.parametrize(
    "spec",
    [
        Drop(Bernoulli(0.5), "b o i", "b o i", Constant(1.0), Classic()),
        Drop(Bernoulli(0.5), "b o i", "b o i", scale=KeptFraction()),
        Drop(Bernoulli(0.5), "b o i", "b o i", scale=MomentMatch()),
    ],
)
def test_specs_without_closed_forms_are_refused(spec):
    with pytest.raises(
        InputError, match=r"needs fill Zero\(\) and scale Inverted\(\) or Classic\(\)"
    ):
        drop_connect(spec)


def test_moments_draw_for_examples_alone():
    layer = drop_connect(sampling="moments")
    with pytest.raises(
        InputError, match=r"needs input \[b, in\].*got \[2, 3, 6\]; use sampling='exact'"
    ):
        layer(torch.randn(2, 3, 6))
    assert layer.eval()(torch.randn(2, 3, 6)).shape == (2, 3, 4)
    assert layer.train()(torch.randn(0, 6)).shape == (0, 4)
    assert layer(torch.randn(6)).shape == (4,)


@pytest.mark.parametrize("sampling", ["exact", "moments"])
def test_ids_are_one_a_row(sampling):
    model = torch.nn.Sequential(drop_connect(sampling=sampling))
    key = thinned.key(model)
    key.at(0, samples=[5])
    with pytest.raises(InputError, match="each of the 4 examples"):
        model(torch.randn(4, 6))
