"""Networks of users, with dropout modules before their weight layers."""

from __future__ import annotations

import copy
import pickle

import torch

from thinned.train.networks import NetworkWithDropout

from .common import BASE, blobs, d


class Attentive(torch.nn.Module):
    """Attention, recurrence, and a layer that is called by keyword."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)
        self.recurrent = torch.nn.LSTM(4, 5, 2, dropout=0.5, batch_first=True)
        self.last = torch.nn.Linear(5, 3)

    def forward(self, x):
        x = x.unflatten(1, (3, 4))
        x = self.attention(x, x, x)[0]
        return self.last(input=self.recurrent(x)[0][:, -1])


def test_the_recipe_governs_all_dropout():
    x = blobs().val.x
    quiet = NetworkWithDropout(Attentive(), BASE, None).train()
    assert torch.equal(quiet(x), quiet(x))
    loud = NetworkWithDropout(Attentive(), BASE.at(drops=(d(0.5),)), None).train()
    assert len(loud.drops) == 1
    assert not torch.equal(loud(x), loud(x))


def test_copies_have_their_own_dropout_modules():
    x = blobs().val.x
    placed = NetworkWithDropout(Attentive(), BASE.at(drops=(d(0.5),)), None).train()
    for twin in (copy.deepcopy(placed), pickle.loads(pickle.dumps(placed))):  # noqa: S301
        twin.drops[0].p = 0.0
        assert torch.equal(twin(x), twin(x))
        assert not torch.equal(placed(x), placed(x))
