"""Changing models: names, weights and training mode stay; undo is exact."""

from __future__ import annotations

import copy

import torch

import thinned
from thinned import nn


def model():
    torch.manual_seed(0)
    shared = torch.nn.Dropout(0.3)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), shared, torch.nn.Sequential(torch.nn.Dropout2d(0.2), torch.nn.AlphaDropout(0.1, True)), shared
    )


def test_replace_and_undo():
    net = model()
    net[2][0].eval()
    before, state = list(net.named_modules()), copy.deepcopy(net.state_dict())
    edits = thinned.replace(net)
    assert len(edits) == 4
    assert net[1] is net[3]
    assert [(type(m), m.p, m.inplace, m.training) for m in (net[1], *net[2])] == [
        (nn.Dropout, 0.3, False, True), (nn.Dropout, 0.2, False, False), (nn.Dropout, 0.1, True, True),
    ]  # fmt: skip
    assert repr(net[2][0]) == "Dropout(spatial2d, p=0.2, inplace=False)"
    assert net.state_dict().keys() == state.keys()
    assert len(thinned.replace(net)) == 0
    edits.undo()
    assert [(n, id(m)) for n, m in net.named_modules()] == [(n, id(m)) for n, m in before]


def test_layers_with_hooks_and_subclasses_stay():
    class Mine(torch.nn.Dropout):
        pass

    net = torch.nn.Sequential(Mine(0.1), torch.nn.Dropout(0.2))
    net[1].register_forward_hook(lambda *_: None)
    assert len(thinned.replace(net)) == 0
    assert repr(thinned.replace(net)) == "nothing changed"


def test_loss_curves_agree_with_torchs():
    """The same law: mean losses over seeds within their spread (a z test on 16 seeds each, alpha 1e-4, fixed seeds)."""
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    y = x[:, :3].sum(1).sin()

    def final(seed, ours):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1))
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
