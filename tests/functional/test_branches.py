"""Residual branches beyond affine specs: Shake-Shake, ShakeDrop, swapout, LayerDrop."""

from __future__ import annotations

import copy

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Key, Linear

A, B = torch.randn(3000, 4).double(), torch.randn(3000, 4).double()


def slope(y, x):
    return torch.autograd.grad(y.sum(), x, retain_graph=True)[0]


def test_shake_shake_blends_forward_and_backward_by_different_weights():
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    y = F.shake_shake(a, b, key=Key(1))
    share = ((y - b) / (a - b)).detach()
    torch.testing.assert_close(share, share[:, :1].expand_as(share))  # one for each example
    back = slope(y, a)
    torch.testing.assert_close(back, back[:, :1].expand_as(back))
    torch.testing.assert_close(back + slope(y, b), torch.ones_like(back))
    assert (back - share).abs().mean() > 0.2  # E|u - v| of independent uniforms is 1/3
    for drawn in (share[:, 0], back[:, 0]):
        assert 0 < drawn.min() < 0.01
        assert 0.99 < drawn.max() < 1
        assert abs(drawn.mean() - 0.5) < 4.9 * (1 / 12 / 3000) ** 0.5  # alpha 1e-6
    torch.testing.assert_close(F.shake_shake(a, b, training=False), 0.5 * (a + b))


@pytest.mark.parametrize(("backward", "exact"), [("keep", True), ("even", False), ("shake", False)])
def test_only_keep_has_the_gradient_of_what_it_computes(backward, exact):
    a, b = A[:5].clone().requires_grad_(), B[:5].clone().requires_grad_()
    right = torch.autograd.gradcheck(
        lambda a, b: F.shake_shake(a, b, backward=backward, key=Key(3)),
        (a, b),
        raise_exception=False,
    )
    assert right is exact
    if backward == "even":
        torch.testing.assert_close(
            slope(F.shake_shake(a, b, backward="even"), a), torch.full_like(a, 0.5)
        )


def test_shake_drop_is_stochastic_depth_at_alpha_and_beta_0():
    """The same draw for the batch, the same result, and both evaluate to the mean."""
    depth = presets.stochastic_depth(0.4, per="batch")
    outcomes = set()
    for seed in range(30):
        x = A.clone().requires_grad_()
        y = F.shake_drop(x, 0.4, alpha=(0, 0), beta=(0, 0), key=Key(seed))
        expected = F.drop(x, depth, key=Key(seed))
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(slope(y, x), slope(expected, x))
        outcomes.add(bool(y.any()))
    assert outcomes == {True, False}
    torch.testing.assert_close(F.shake_drop(A, 0.4, training=False), 0.6 * A)


def test_shake_drop_has_the_mean_of_its_evaluation():
    """E[b + a - b a] over the draws of the gate and the weights.

    Each example has its own a, and gradients have another weight.
    """
    for alpha in ((-1.0, 1.0), (0.0, 1.0)):
        factors = torch.stack(
            [
                F.shake_drop(torch.ones(300, 2), 0.5, alpha=alpha, key=Key(s))[:, 0]
                for s in range(400)
            ]
        )
        shaken = (factors != 1).any(1)
        assert abs(shaken.double().mean() - 0.5) < 4.9 * 0.5 / 20  # alpha 1e-6
        mean = F.shake_drop(torch.ones(1, 1), 0.5, training=False, alpha=alpha).item()
        blended = 0.5 * factors[shaken].mean() + 0.5
        assert abs(blended - mean) < 0.02
    x = torch.ones(200, 2, requires_grad=True)
    y = F.shake_drop(x, 1.0, key=Key(0))
    back = slope(y, x)
    assert y.min() < 0 < back.min()  # forward in (-1, 1), backward in (0, 1)
    assert F.shake_drop(x, 0.0) is x


def test_swapout_corner_cases():
    assert torch.equal(F.swapout(A, B, 0.0), A + B)
    torch.testing.assert_close(F.swapout(A, B, 1.0), torch.zeros_like(A))
    torch.testing.assert_close(F.swapout(A, B, 1.0, skip_p=0.0), A)
    torch.testing.assert_close(F.swapout(A, B, 0.0, skip_p=1.0), B)
    classic = A + F.drop(B, presets.dropout(0.3, "classic"), key=F.fold_in(Key(6), 1))
    torch.testing.assert_close(F.swapout(A, B, 0.3, skip_p=0.0, key=Key(6)), classic)
    torch.testing.assert_close(F.swapout(A, B, 0.3, training=False, skip_p=0.2), 0.8 * A + 0.7 * B)
    y = F.swapout(torch.ones(3000, 4), 2 * torch.ones(3000, 4), 0.5, key=Key(2))
    shares = (
        torch.bincount(y.flatten().long(), minlength=4) / y.numel()
    )  # zero, skip, feed-forward, residual
    assert (shares - 0.25).abs().max() < 5.2 * (0.1875 / y.numel()) ** 0.5  # alpha 1e-6 over four


def test_layer_drop_skips_whole_layers_without_scaling():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(6, 6) for _ in range(5)]
    stack, x = nn.LayerDrop(layers, 0.5), torch.randn(3, 6)
    key = thinned.key(stack, seed=2)
    counts = 0
    for step in range(40):
        key.at(step)
        kept = F.bernoulli_mask(
            (5,), 0.5, key.tensor_key()._replace(stream=stack.stream), x, per="l", of="l"
        ).tolist()
        stack.zero_grad()
        y = stack(x)
        expected = x
        for layer, is_kept in zip(layers, kept, strict=True):
            expected = layer(expected) if is_kept else expected
        assert torch.equal(y, expected)
        if y.requires_grad:
            y.sum().backward()
        assert [layer.weight.grad is not None for layer in layers] == kept
        counts += sum(kept)
    assert 60 < counts < 140  # binomial(200, 1/2): outside has probability 1e-8
    stack.eval()
    expected = x
    for layer in layers:
        expected = layer(expected)
    assert torch.equal(stack(x), expected)


def test_layer_drop_prunes_and_loads():
    layers = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(5))
    stack = nn.LayerDrop(copy.deepcopy(layers), 0.2)
    stack.load_state_dict(layers.state_dict())  # the names of a ModuleList
    half = stack.prune(2)
    assert [half[i] is stack[2 * i] for i in range(3)] == [True] * 3
    assert stack.prune([4, 1])[0] is stack[4]
    assert half.p == 0.2
    moving = nn.LayerDrop(layers, Linear(0.0, 0.5, 10))
    thinned.step(moving, 5)
    assert moving.p == 0.25
    for keep, message in (
        (0, "keep has to be at least 1"),
        ([7], "names layer 7, but there are layers 0 to 4"),
    ):
        with pytest.raises(InputError, match=message):
            stack.prune(keep)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: F.shake_shake(A, B[0]),
            r"two branches of Shake-Shake have to be of one shape, but got \[3000, 4\] and \[4\]",
        ),
        (lambda: F.shake_shake(A, B, backward="both"), "unknown backward 'both'"),
        (lambda: F.shake_drop(A, 1.5), "between 0 and 1, but got 1.5"),
        (lambda: F.shake_drop(A, 0.5, alpha=(1.0, -1.0)), r"alpha has to be a range \(low, high\)"),
        (lambda: F.swapout(A, B[:2]), "input and branch have to be of one shape"),
        (lambda: nn.LayerDrop([], 2.0), "between 0 and 1, but got 2.0"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
