"""Mixout, shakeout, embedding and word dropout against their definitions, by enumeration or by
reduction.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import Key

X = torch.linspace(-1, 1, 40 * 6, dtype=torch.float64).reshape(40, 6)


def test_mixout_is_its_definition():
    torch.manual_seed(0)
    w = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    u, p = torch.randn(8, 5, dtype=torch.float64), 0.3
    y = F.mixout(w, u, p, key=Key(3))
    fell = torch.isclose(y, u)  # where (w - u) fell, u remains
    m = (~fell).double()
    torch.testing.assert_close(y, (m * w + (1 - m) * u - p * u) / (1 - p))
    (grad,) = torch.autograd.grad(y.sum(), w)
    torch.testing.assert_close(grad, m / (1 - p))  # the true slope, not the authors' m
    many = torch.stack([F.mixout(w, u, p, key=Key(s)).detach() for s in range(4000)])
    error = (p / (1 - p)) ** 0.5 * (w - u).abs().detach() / 4000**0.5
    assert ((many.mean(0) - w).abs() < 5.2 * error).all()  # alpha 1e-5 over 40 weights
    assert torch.equal(F.mixout(w, u, 1.0), u)
    assert F.mixout(w, u, 0.3, training=False) is w
    zero = F.mixout(w, torch.zeros_like(u), p, key=Key(3))
    torch.testing.assert_close(zero, w * m / (1 - p))
    with pytest.raises(InputError, match=r"of shape \[8, 5\], but got \[5\]"):
        F.mixout(w, u[0])


def test_shakeout_is_its_definition():
    torch.manual_seed(0)
    w, b, p, c = (
        torch.randn(4, 6, dtype=torch.float64),
        torch.randn(4, dtype=torch.float64),
        0.4,
        0.7,
    )
    m = F.mask(presets.dropout(p), (40, 6), Key(5)).double()
    y = F.shakeout(X, w, b, p, c, key=Key(5))
    q = 1 - p
    weights = m[:, None] / q * w + c * (m[:, None] / q - 1) * w.sign()  # [b, out, in]
    torch.testing.assert_close(y, torch.einsum("boi,bi->bo", weights, X) + b, rtol=1e-8, atol=1e-8)
    mean = torch.zeros(4, dtype=torch.float64)
    for bernoulli_mask in itertools.product((0.0, 1.0), repeat=6):  # exact: E is the plain layer
        m1 = torch.tensor(bernoulli_mask, dtype=torch.float64)
        weight = (q**m1 * p ** (1 - m1)).prod()
        mean += weight * ((m1 / q * w + c * (m1 / q - 1) * w.sign()) @ X[7])
    torch.testing.assert_close(mean, w @ X[7])
    torch.testing.assert_close(F.shakeout(X, w, b, p, c, training=False), X @ w.T + b)
    torch.testing.assert_close(
        F.shakeout(X, w, b, p, 0.0, key=Key(5)), F.drop(X, presets.dropout(p), key=Key(5)) @ w.T + b
    )
    with pytest.raises(InputError, match="c has to be at least 0, but got -1"):
        F.shakeout(X, w, c=-1)


def test_embedding_dropout_drops_words_wherever_they_stand():
    table = torch.ones(30, 4, requires_grad=True)
    ids = torch.arange(30).repeat(3, 2)
    y = F.embedding_dropout(ids, table, 0.5, key=Key(1, samples=torch.arange(3)))
    assert torch.equal(y[:, :30], y[:, 30:])
    assert torch.equal(y[0], y[1])
    assert set(y[0, :30, 0].tolist()) == {0.0, 2.0}
    assert torch.equal(y[..., 0], y[..., 3])
    y.sum().backward()
    assert torch.equal(table.grad[:, 0] != 0, y[0, :30, 0] != 0)
    assert torch.equal(F.embedding_dropout(ids, table, 0.5, training=False), table[ids])
    for wrong in (30, -1):
        with pytest.raises(InputError, match=f"below 30, the rows of the table, but got {wrong}"):
            F.embedding_dropout(torch.tensor([wrong]), table)


def test_word_dropout():
    ids = torch.arange(1, 4001).reshape(40, 100)
    y = F.word_dropout(ids, 0, 0.2, key=Key(2))
    kept = F.mask(presets.dropout(0.2), (40, 100), Key(2))
    assert torch.equal(y, torch.where(kept, ids, 0))
    assert F.word_dropout(ids, 0, 0.2, training=False) is ids
    assert torch.equal(F.word_dropout(ids, 7, 1.0), torch.full_like(ids, 7))
    order = torch.randperm(40)
    again = F.word_dropout(ids[order], 0, 0.2, key=Key(2, samples=order))
    assert torch.equal(again, y[order])


def test_drop_head_keeps_the_sum_of_weights():
    """The mean over heads of the scaled mask is 1 in every example, also where all would have
    fallen.
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


def test_drop_key_renormalises_and_is_never_nan():
    scores = torch.randn(50, 4, 6, 3, requires_grad=True)
    attention = F.drop_key(scores, 0.7, key=Key(2)).softmax(-1)
    torch.testing.assert_close(attention.sum(-1), torch.ones(50, 4, 6))
    kept = F.mask(presets.dropout(0.7), tuple(scores.shape), Key(2))
    kept = kept | ~kept.any(-1, keepdim=True)
    renormalised = scores.softmax(-1) * kept
    torch.testing.assert_close(attention, renormalised / renormalised.sum(-1, keepdim=True))
    attention.square().sum().backward()
    assert scores.grad.isfinite().all()
    assert F.drop_key(scores, 0.7, training=False) is scores
    with pytest.raises(InputError, match="the rate of keys"):
        F.drop_key(scores, 1.0)
