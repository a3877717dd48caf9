"""The layers on words: embedding dropout and word dropout against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

import thinned
from thinned import InputError, nn
from thinned import functional as F
from thinned.algebra import Bernoulli, Drop, Key, Linear

IDS = torch.arange(63).reshape(7, 9) * 7 % 30


def embedding(**settings):
    torch.manual_seed(0)
    return torch.nn.Embedding(30, 4, **settings)


def test_embedding_dropout_is_the_embedding_of_a_table_with_dropped_rows():
    table, p = embedding().weight.detach().double().requires_grad_(), 0.4
    kept = F.mask(Drop(Bernoulli(p), per="v", of="v d"), (30, 4), Key(3)).double()
    y = F.embedding_dropout(IDS, table, p, key=Key(3))
    expected = (table * kept / (1 - p))[IDS]
    torch.testing.assert_close(y, expected)
    ours, theirs = (torch.autograd.grad(t.square().sum(), table)[0] for t in (y, expected))
    torch.testing.assert_close(ours, theirs)
    assert 0 < kept.sum() < 30


def test_every_word_is_dropped_at_the_rate():
    table, p, draws = torch.ones(30, 1), 0.3, 400
    dropped = sum(
        (F.embedding_dropout(torch.arange(30), table, p, key=Key(s)) == 0).sum().item()
        for s in range(draws)
    )
    n = 30 * draws
    assert abs(dropped / n - p) < 4.9 * math.sqrt(p * (1 - p) / n)  # alpha 1e-6


def test_embedding_layer():
    plain = embedding(padding_idx=3)
    layer = nn.EmbeddingDropout(plain, 0.5)
    assert layer.weight is plain.weight
    assert list(layer.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(layer.state_dict())
    y = layer(torch.tensor([[5, 6, 5], [6, 5, 6]]))
    assert torch.equal(y[0, 0], y[0, 2])
    assert torch.equal(y[0, 0], y[1, 1])
    assert torch.equal(layer.eval()(IDS), plain(IDS))
    layer.train().p = 0.0
    assert torch.equal(layer(IDS), plain(IDS))
    assert repr(layer) == "EmbeddingDropout(30, 4, p=0.0)"


def test_the_padding_row_is_never_dropped():
    plain = embedding(padding_idx=3)
    with torch.no_grad():
        plain.weight[3] = 7.0
    y = nn.EmbeddingDropout(plain, 1.0)(IDS)
    assert (IDS == 3).any()
    assert (y[IDS == 3] == 7.0).all()
    assert not y[IDS != 3].any()
    y.sum().backward()
    assert not plain.weight.grad.any()
    plain.weight.grad = None
    nn.EmbeddingDropout(plain, 0.5)(IDS).sum().backward()
    assert not plain.weight.grad[3].any()
    assert plain.weight.grad.any()


def test_max_norm_and_sparse_gradients_hold_on():
    limited = embedding(max_norm=0.5)
    y = nn.EmbeddingDropout(limited, 0.5)(IDS)
    norms = y.norm(dim=-1)
    assert (norms < 1.0 + 1e-4).all()  # 0.5 / (1 - p)
    assert (limited.weight[IDS].norm(dim=-1) < 0.5 + 1e-4).all()
    sparse = embedding(sparse=True)
    nn.EmbeddingDropout(sparse, 0.5)(IDS).sum().backward()
    assert sparse.weight.grad.is_sparse
    scaled, plain = embedding(scale_grad_by_freq=True), embedding(scale_grad_by_freq=True)
    nn.EmbeddingDropout(scaled, 0.0)(IDS).sum().backward()
    plain(IDS).sum().backward()
    assert torch.equal(scaled.weight.grad, plain.weight.grad)


def test_schedules_move_both():
    model = torch.nn.ModuleList(
        [
            nn.EmbeddingDropout(embedding(), Linear(0.0, 1.0, 4)),
            nn.WordDropout(Linear(0.0, 1.0, 4), 0),
        ]
    )
    thinned.step(model, 4)
    assert not model[0](IDS).any()
    assert not model[1](IDS).any()
    thinned.step(model, 0)
    assert model[1](IDS) is IDS


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.EmbeddingDropout(torch.nn.Linear(2, 2)),
            "needs a torch.nn.Embedding, but got Linear",
        ),
        (lambda: nn.EmbeddingDropout(embedding(), 1.5), "between 0 and 1, but got 1.5"),
        (
            lambda: nn.EmbeddingDropout(embedding())(torch.tensor([30])),
            "below 30, the number of rows of the table, but got 30",
        ),
        (lambda: nn.WordDropout(0.1, -1), "unknown_id has to be at least 0, but got -1"),
        (
            lambda: nn.WordDropout(0.1)(torch.ones(3, 4)),
            "needs ids that are whole numbers, but got torch.float32",
        ),
        (lambda: nn.WordDropout(-0.1), "between 0 and 1, but got -0.1"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
