"""Attention with dropout on probabilities, keys and heads against torch's own and against closed
forms.
"""

from __future__ import annotations

import math

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Key, Linear

fused = torch.nn.functional.scaled_dot_product_attention


def qkv(b=3, h=2, queries=5, keys=6, e=8, d=4, dtype=torch.float64):
    torch.manual_seed(1)
    return tuple(
        torch.randn(b, h, *shape, dtype=dtype) for shape in ((queries, e), (keys, e), (keys, d))
    )


def read(method, p, examples=None, key=None, **settings):
    """The attention weights: the results for values that are unit vectors."""
    q, k, _ = qkv()
    if examples:
        q, k = q[:1].expand(examples, *q.shape[1:]), k[:1].expand(examples, *k.shape[1:])
    unit = torch.eye(6, dtype=q.dtype).expand(*q.shape[:2], 6, 6)
    return F.attention_dropout(q, k, unit, p=p, method=method, key=key, **settings)


BOOL = torch.arange(6) <= torch.arange(5).unsqueeze(1)
MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": BOOL},
    "numbers": {"attn_mask": torch.linspace(-2, 2, 30, dtype=torch.float64).reshape(5, 6)},
    "scale": {"scale": 0.3},
}


@pytest.mark.parametrize("settings", MASKS.values(), ids=MASKS)
def test_probabilities_are_inverted_dropout_of_the_weights(settings):
    q, k, v = qkv()
    keep = F.mask(presets.dropout(0.4), (3, 2, 5, 6), Key(3))
    weights = read("probabilities", 0.0, **settings)
    torch.testing.assert_close(weights @ v, fused(q, k, v, **settings))
    drawn = read("probabilities", 0.4, key=Key(3), **settings)
    torch.testing.assert_close(drawn, weights * keep / 0.6)
    torch.testing.assert_close(
        F.attention_dropout(q, k, v, p=0.4, key=Key(3), **settings), drawn @ v
    )
    assert torch.equal(
        F.attention_dropout(q, k, v, p=0.4, training=False, **settings), fused(q, k, v, **settings)
    )


def test_rows_sum_to_one_on_average_alone():
    """Var[sum] = p / q sum(a^2), row by row."""
    count, p = 20_000, 0.3
    a = read("probabilities", 0.0)[0]
    sums = read("probabilities", p, count, Key(1)).sum(-1)
    var = p / (1 - p) * a.square().sum(-1)
    assert ((sums.mean(0) - 1).abs() < 5.3 * (var / count).sqrt()).all()  # alpha 1e-6 over 10 rows
    fourth = ((sums - 1) ** 4).mean(0)
    assert ((sums.var(0) - var).abs() < 5.3 * ((fourth - var**2) / count).sqrt()).all()


@pytest.mark.parametrize("settings", MASKS.values(), ids=MASKS)
def test_keys_renormalize_what_is_kept(settings):
    a = read("keys", 0.0, **settings)
    keep = F.mask(presets.dropout(0.6), (3, 2, 5, 6), Key(4))
    visible = a > 0
    keep = keep | ~(keep & visible).any(-1, keepdim=True)
    kept = a * keep
    drawn = read("keys", 0.6, key=Key(4), **settings)
    torch.testing.assert_close(drawn, kept / kept.sum(-1, keepdim=True))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(3, 2, 5, dtype=torch.float64))


def test_keys_are_drop_key_and_heads_are_drop_head():
    q, k, v = qkv()
    scores = q @ k.transpose(-1, -2) / math.sqrt(8)
    expected = F.drop_key(scores, 0.5, key=Key(2)).softmax(-1) @ v
    torch.testing.assert_close(
        F.attention_dropout(q, k, v, p=0.5, method="keys", key=Key(2)), expected
    )
    expected = F.drop_head(fused(q, k, v, attn_mask=BOOL), 0.5, key=Key(2))
    torch.testing.assert_close(
        F.attention_dropout(q, k, v, BOOL, p=0.5, method="heads", key=Key(2)), expected
    )


@pytest.mark.parametrize("method", ["probabilities", "keys", "heads"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_fully_masked_query_gives_what_torch_gives(method, dtype):
    q, k, v = (t.to(dtype).requires_grad_() for t in qkv())
    for mask in (BOOL.clone(), torch.zeros(5, 6, dtype=dtype).masked_fill(~BOOL, -math.inf)):
        mask[2] = False if mask.dtype == torch.bool else -math.inf
        plain = fused(q, k, v, attn_mask=mask)
        assert not plain[:, :, 2].any()
        for p in (0.0, 0.7, 0.999999):
            y = F.attention_dropout(q, k, v, mask, p=p, method=method, key=Key(1))
            assert not y[:, :, 2].any()
            assert y.isfinite().all()
            assert y.dtype == dtype
            grads = torch.autograd.grad(y.square().sum(), (q, k, v))
            assert all(g.isfinite().all() for g in grads)


def test_all_probabilities_are_dropped_at_rate_one():
    q, k, v = (t.requires_grad_() for t in qkv())
    y = F.attention_dropout(q, k, v, p=1.0)
    assert not y.any()
    assert not any(g.any() for g in torch.autograd.grad(y.sum(), (q, k, v)))


class TorchAttention(torch.nn.Module):
    def forward(self, q, k, v):
        return fused(q, k, v, dropout_p=0.5)


def test_torch_drops_in_evaluation_and_ours_does_not():
    q, k, v = qkv(dtype=torch.float32)
    theirs, ours = TorchAttention().eval(), nn.AttentionDropout(0.5).eval()
    torch.manual_seed(0)
    assert not torch.equal(theirs(q, k, v), theirs(q, k, v))
    before = torch.get_rng_state()
    assert torch.equal(ours(q, k, v), ours(q, k, v))
    assert torch.equal(ours(q, k, v), fused(q, k, v))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(ours.train()(q, k, v), fused(q, k, v))
    with thinned.off(ours):
        assert torch.equal(ours(q, k, v), fused(q, k, v))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["probabilities", "keys", "heads"])
def test_a_schedule_in_one_graph(method):
    torch._dynamo.reset()
    layer = nn.AttentionDropout(Linear(0.0, 0.8, 4), method)
    key = thinned.key(layer)
    run = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for step in range(5):
        key.at(step)
        y = run(*qkv(dtype=torch.float32), is_causal=True)
        key.at(step)
        torch.testing.assert_close(y, layer(*qkv(dtype=torch.float32), is_causal=True))
        assert layer.p == pytest.approx(0.2 * step)


def test_without_heads_and_by_name():
    q, k, v = (t[:, 0] for t in qkv())
    layer = nn.AttentionDropout(0.5, "keys")
    key = thinned.key(layer)
    key.at(0)
    y = layer(query=q, key=k, value=v)
    key.at(0)
    assert torch.equal(y, layer(q, k, v))
    assert y.shape == (3, 5, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.AttentionDropout(0.1, "key"), "unknown method 'key'; did you mean 'keys'"),
        (lambda: F.attention_dropout(*qkv(), method="rows"), "unknown method 'rows'"),
        (
            lambda: F.attention_dropout(*qkv(), BOOL, True),
            "attn_mask and is_causal=True exclude each other",
        ),
        (
            lambda: F.attention_dropout(*(t[:, 0] for t in qkv()), method="heads"),
            r"needs a query of shape \[b, h, l, e\]",
        ),
        (lambda: F.attention_dropout(*qkv(), p=1.0, method="keys"), "at least 0 and below 1"),
        (lambda: F.attention_dropout(*qkv(), p=1.5), "between 0 and 1, but got 1.5"),
        (lambda: nn.DropKey(2.0), "between 0 and 1, but got 2.0"),
        (lambda: nn.DropHead(0.5)(torch.ones(2, 3)), r"shape \[b, h, ...\]"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_drop_head_keeps_the_sum_of_weights():
    """The mean over heads of the scaled mask is 1 in every example, also where all would
    have been dropped.
    """
    ones = torch.ones(4000, 3, 2, 5, requires_grad=True)
    y = F.drop_head(ones, 0.6, key=Key(1))
    per_head = y[:, :, 0, 0]
    torch.testing.assert_close(per_head.mean(1), torch.ones(4000))
    assert torch.equal(y, per_head[:, :, None, None].expand_as(y))
    kept = F.mask(presets.dropout(0.6), (4000, 3), Key(1))
    empty = ~kept.any(1)
    assert empty.sum() > 700  # 0.6^3 of 4000, 864 on average
    assert torch.equal(per_head[empty], torch.ones(int(empty.sum()), 3))
    assert torch.equal(per_head[~empty] > 0, kept[~empty])
    y.sum().backward()
    assert ones.grad.isfinite().all()
    assert F.drop_head(ones, 0.6, training=False) is ones
    for wrong in (1.0, -0.1):
        with pytest.raises(InputError, match="the rate of heads has to be at least 0 and below 1"):
            F.drop_head(ones, wrong)
    with pytest.raises(InputError, match=r"shape \[b, h, ...\], but got \[2, 3\]"):
        F.drop_head(torch.ones(2, 3))


def test_drop_key_renormalizes_and_is_never_nan():
    scores = torch.randn(50, 4, 6, 3, requires_grad=True)
    attention = F.drop_key(scores, 0.7, key=Key(2)).softmax(-1)
    torch.testing.assert_close(attention.sum(-1), torch.ones(50, 4, 6))
    kept = F.mask(presets.dropout(0.7), tuple(scores.shape), Key(2))
    kept = kept | ~kept.any(-1, keepdim=True)
    renormalized = scores.softmax(-1) * kept
    torch.testing.assert_close(attention, renormalized / renormalized.sum(-1, keepdim=True))
    attention.square().sum().backward()
    assert scores.grad.isfinite().all()
    assert F.drop_key(scores, 0.7, training=False) is scores
    with pytest.raises(InputError, match="the rate of keys"):
        F.drop_key(scores, 1.0)
