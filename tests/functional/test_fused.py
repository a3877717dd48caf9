"""The fused pairs against their parts, under one key: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as TF

from thinned import InputError
from thinned import functional as F
from thinned.algebra import Key
from thinned.presets import dropout

KEY = Key(3, step=2, samples=torch.arange(6) + 5)


def parts(x, p):
    return F.drop(x, dropout(p), key=KEY, impl="reference")


PAIRS = {
    "add": (lambda x, r, w, p: F.dropout_add(x, r, p, key=KEY), lambda x, r, w, p: r + parts(x, p)),
    "add-broadcast": (
        lambda x, r, w, p: F.dropout_add(x, w, p, key=KEY),
        lambda x, r, w, p: w + parts(x, p),
    ),
    "norm": (
        lambda x, r, w, p: F.dropout_add_layer_norm(x, r, w, w + 1, p, key=KEY),
        lambda x, r, w, p: TF.layer_norm(r + parts(x, p), w.shape, w, w + 1),
    ),
    "relu": (
        lambda x, r, w, p: F.bias_act_dropout(x, w, "relu", p, key=KEY),
        lambda x, r, w, p: parts(torch.relu(x + w), p),
    ),
    "relu-no-bias": (
        lambda x, r, w, p: F.bias_act_dropout(x, None, "relu", p, key=KEY),
        lambda x, r, w, p: parts(torch.relu(x), p),
    ),
    "gelu": (
        lambda x, r, w, p: F.bias_act_dropout(x, w, "gelu", p, key=KEY),
        lambda x, r, w, p: parts(TF.gelu(x + w), p),
    ),
}


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", PAIRS)
def test_fused_equals_its_parts(name, p):
    fused, plain = PAIRS[name]
    generator = torch.Generator().manual_seed(0)
    x, r, w = (
        torch.randn(s, generator=generator, requires_grad=True)
        for s in ((6, 5, 16), (6, 5, 16), (16,))
    )
    results = []
    for f in (fused, plain):
        y = f(x, r, w, p)
        results.append(
            (
                y,
                *torch.autograd.grad(
                    (y * torch.linspace(-1, 1, 16)).sum(), (x, r, w), allow_unused=True
                ),
            )
        )
    for ours, theirs in zip(*results, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero if ours is None else ours, zero if theirs is None else theirs, check_device=False
        )


@pytest.mark.parametrize("name", PAIRS)
def test_evaluation(name):
    x, w = torch.randn(6, 5, 16), torch.randn(16)
    run = {
        "add": lambda: (F.dropout_add(x, x, 0.5, False), x + x),
        "add-broadcast": lambda: (F.dropout_add(x, w, 0.5, False), x + w),
        "norm": lambda: (
            F.dropout_add_layer_norm(x, x, w, w, 0.5, False),
            TF.layer_norm(2 * x, (16,), w, w),
        ),
        "relu": lambda: (F.bias_act_dropout(x, w, "relu", 0.5, False), torch.relu(x + w)),
        "relu-no-bias": lambda: (F.bias_act_dropout(x, None, "relu", 0.5, False), torch.relu(x)),
        "gelu": lambda: (F.bias_act_dropout(x, w, "gelu", 0.5, False), TF.gelu(x + w)),
    }[name]
    ours, theirs = run()
    torch.testing.assert_close(ours, theirs)


def test_bad_calls():
    with pytest.raises(InputError, match="unknown activation 'tanh'"):
        F.bias_act_dropout(torch.ones(2), None, "tanh")
    with pytest.raises(InputError, match="between 0 and 1, but got 2"):
        F.dropout_add(torch.ones(2), torch.ones(2), 2)
    with pytest.raises(InputError, match="samples has to name each of the 2"):
        F.dropout_add(torch.ones(2), torch.ones(2), 0.5, key=KEY)


@pytest.mark.parametrize("p", ["x", None, True, dropout(0.5), [0.3]])
def test_what_is_no_rate_raises(p):
    x, ones = torch.ones(2, 4), torch.ones(4)
    F.dropout(x, 1.0)  # a cache of rates must not take True for 1
    for call in (
        lambda: F.dropout(x, p),
        lambda: F.dropout_add(x, x, p),
        lambda: F.dropout_add_layer_norm(x, x, ones, ones, p),
        lambda: F.bias_act_dropout(x, ones, p=p),
        lambda: F.swapout(x, x, p, training=False),
    ):
        with pytest.raises(InputError, match="dropout probability has to be a number"):
            call()
