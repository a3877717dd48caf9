"""Embedding and word dropout against their definitions."""

from __future__ import annotations

import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import Key


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
        with pytest.raises(
            InputError, match=f"below 30, the number of rows of the table, but got {wrong}"
        ):
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
