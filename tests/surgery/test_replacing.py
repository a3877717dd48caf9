"""``replace``: names, weights and training mode are unchanged; undo is exact."""

from __future__ import annotations

import copy

import torch

import thinned
from thinned import nn


def model():
    torch.manual_seed(0)
    shared = torch.nn.Dropout(0.3)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8),
        shared,
        torch.nn.Sequential(torch.nn.Dropout2d(0.2), torch.nn.AlphaDropout(0.1, True)),
        shared,
    )


def test_replace_and_undo():
    net = model()
    net[2][0].eval()
    before, state = list(net.named_modules()), copy.deepcopy(net.state_dict())
    edits = thinned.replace(net)
    assert len(edits) == 4
    assert net[1] is net[3]
    assert [(type(m), m.p, m.inplace, m.training) for m in (net[1], *net[2])] == [
        (nn.Dropout, 0.3, False, True),
        (nn.Dropout2d, 0.2, False, False),
        (nn.AlphaDropout, 0.1, True, True),
    ]
    assert repr(net[2][0]) == "Dropout2d(p=0.2, inplace=False)"
    assert net.state_dict().keys() == state.keys()
    assert len(thinned.replace(net)) == 0
    edits.undo()
    assert [(n, id(m)) for n, m in net.named_modules()] == [(n, id(m)) for n, m in before]


class Path(torch.nn.Module):
    """Drop path as other libraries write it. ``shape``: of the mask, -1 for the number of
    examples; ``scaled``: by the probability of keeping.
    """

    def __init__(self, drop_prob, shape=(-1, 1), scaled=True, always=False):
        super().__init__()
        self.drop_prob, self.shape, self.scaled, self.always = drop_prob, shape, scaled, always

    def forward(self, x):
        if not (self.training or self.always) or self.drop_prob == 0:
            return x
        mask = torch.empty([len(x) if n < 0 else n for n in self.shape]).bernoulli_(
            1 - self.drop_prob
        )
        return x * (mask / (1 - self.drop_prob) if self.scaled else mask)


class DropPath(Path):
    pass


class MyStochasticDepth(Path):
    pass


def test_paths_of_other_libraries_become_ours():
    """Recognized by what they drop: rows or the batch, scaled or not. Other layers are left."""
    net = torch.nn.Sequential(
        DropPath(0.2),
        MyStochasticDepth(0.3, (1, 1)),
        DropPath(0.0, scaled=False),
        DropPath(0.1, (-1, 3)),
        DropPath(0.1, always=True),
        Path(0.1),
        DropPath(0.1, (2, 2, 2)),
    ).eval()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert len(thinned.replace(net)) == 3
    assert torch.equal(torch.get_rng_state(), state)
    rows, batch, bare = net[:3].train()
    assert [(m.p, m.training) for m in (rows, batch, bare)] == [
        (0.2, True),
        (0.3, True),
        (0.0, True),
    ]
    assert not any(m.training for m in net[3:])
    bare.p = 0.5
    x = torch.ones(4000, 3)
    for layer, gain, rate in ((rows, 1 / 0.8, 0.2), (bare, 1.0, 0.5)):
        y = layer(x)
        assert torch.equal(y, y[:, :1].expand_as(x))
        torch.testing.assert_close(y.unique(), torch.tensor([0.0, gain]))
        assert (
            abs((y[:, 0] == 0).double().mean() - rate) < 5 * (rate * (1 - rate) / 4000) ** 0.5
        )  # alpha 6e-7
    seen = torch.stack([batch(x[:5]) for _ in range(60)])
    assert torch.equal(seen, seen[:, :1, :1].expand_as(seen))
    torch.testing.assert_close(seen.unique(), torch.tensor([0.0, 1 / 0.7]))


def test_layers_with_hooks_and_subclasses_are_left():
    class Mine(torch.nn.Dropout):
        pass

    net = torch.nn.Sequential(Mine(0.1), torch.nn.Dropout(0.2))
    net[1].register_forward_hook(lambda *_: None)
    assert len(thinned.replace(net)) == 0
    assert repr(thinned.replace(net)) == (
        "nothing changed\nnote: no key reaches 0 (Mine)\nnote: no key reaches 1 (Dropout)"
    )


def test_loss_curves_agree_with_torchs():
    """The same noise distribution: mean losses over seeds are within their spread (a z test on 16
    seeds each, alpha 1e-4, fixed seeds).
    """
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].sum(1).sin()

    def final(seed, ours):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)
        )
        if ours:
            thinned.replace(net)
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            loss = (net(x).squeeze(1) - y).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    theirs, ours = (torch.tensor([final(s, o) for s in range(16)]) for o in (False, True))
    spread = ((theirs.var() + ours.var()) / 16).sqrt()
    assert abs(theirs.mean() - ours.mean()) < 3.9 * spread
