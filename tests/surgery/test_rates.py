"""``set_rate`` and ``strip``: the rates of layers of any library; errors precede changes, and
undo is exact.
"""

from __future__ import annotations

import copy

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned.algebra import Early, Linear
from thinned.surgery.rates import rate_of


class StochasticPath(torch.nn.Module):
    """A class of no known library, recognized as dropout by its name."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        return x * (torch.rand_like(x) >= self.drop_prob) if self.training and self.drop_prob else x


StochasticPath.__name__ = "DropSomewhere"


def model():
    torch.manual_seed(0)
    shared = torch.nn.Dropout(0.3)
    return torch.nn.ModuleDict(
        {
            "enc": torch.nn.Sequential(
                torch.nn.Linear(4, 4),
                shared,
                torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            ),
            "rnn": torch.nn.LSTM(4, 4, 2, dropout=0.25),
            "plain": torch.nn.GRU(4, 4),
            "head": torch.nn.Sequential(
                shared, nn.Dropout(0.2), nn.DropBlock2d(0.1, 3), StochasticPath(0.15), nn.Cutout(2)
            ),
            "weights": nn.DropConnect(torch.nn.Linear(4, 4), 0.4),
        }
    )


def rates(net):
    return {name: getattr(m, a) for name, m in net.named_modules() if (a := rate_of(m)) is not None}


def test_strip_makes_training_deterministic_and_undo_gives_all_back():
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 4),
        torch.nn.Dropout(0.5),
        StochasticPath(0.5),
        nn.DropConnect(torch.nn.Linear(4, 4)),
        torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.DropState(torch.nn.LSTM(4, 4), states=0.5),
    )
    x, before = torch.randn(3, 5, 4), rates(net)
    assert not torch.equal(net(x)[0], net(x)[0])
    keys = net.state_dict().keys()
    edits = thinned.strip(net)
    assert torch.equal(net(x)[0], net(x)[0])
    assert net.state_dict().keys() == keys
    assert all(rate == 0 for rate in rates(net).values())
    assert len(thinned.strip(net)) == 0
    edits.undo()
    assert rates(net) == before
    assert not torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize(
    ("where", "changed"),
    [
        (torch.nn.LSTM, {"rnn"}),
        ("head.1", {"head.1"}),
        ("self_attn", {"enc.2.self_attn"}),
        (r"^enc\.2\.dropout\d$", {"enc.2.dropout1", "enc.2.dropout2"}),
        (lambda name, module: isinstance(module, StochasticPath), {"head.3"}),
    ],
)
def test_targets(where, changed):
    net = model()
    before = rates(net)
    edits = thinned.set_rate(net, 0.45, where)
    after = rates(net)
    assert {n for n in after if after[n] != before[n]} == changed
    assert len(edits) == len(changed)
    edits.undo()
    assert rates(net) == before


def test_layers_that_drop_get_the_rate_and_others_are_left():
    net = model()
    edits = thinned.set_rate(net, 0.35)
    after = rates(net)
    assert after["plain"] == 0.0
    assert {n for n, r in after.items() if r == 0.35} == {n for n, r in rates(model()).items() if r}
    assert net["head"][0] is net["enc"][1]
    assert "rnn.dropout: 0.25 -> 0.35" in repr(edits)
    depth = thinned.set_rate(net, lambda name, module: 0.1 if name.startswith("head") else None)
    assert {e.path for e in depth.edits} <= {"enc.1", "head.0", "head.1", "head.2", "head.3"}
    assert rates(net)["rnn"] == 0.35


def test_a_compiled_model_follows_without_compiling_anew():
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), nn.Dropout(0.5))
    run = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.randn(50, 64)
    run(x)
    thinned.set_rate(net, 0.9)
    assert abs((run(x) == 0).float().mean() - 0.9) < 4.9 * (0.09 / 3200) ** 0.5  # alpha 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((1.5,), "between 0 and 1, but got 1.5"),
        (
            (0.5, "head.9"),
            r"'head.9' names no layer with a rate of this model; did you mean 'head.\d'",
        ),
        ((0.5, torch.nn.Conv2d), "names no layer with a rate of this model; there are enc.1"),
        ((0.5, "("), "neither a name nor a regular expression"),
        ((lambda n, m: 2.0 if n == "rnn" else 0.5,), "the rate of rnn has to be between 0 and 1"),
    ],
)
def test_refused_before_anything_is_changed(settings, message):
    net = model()
    before = copy.deepcopy(rates(net))
    with pytest.raises(InputError, match=message):
        thinned.set_rate(net, *settings)
    assert rates(net) == before
    with pytest.raises(InputError, match="has no layer with a rate"):
        thinned.set_rate(torch.nn.Linear(2, 2), 0.5, "x")


def test_a_layer_that_refuses_its_rate_leaves_all_as_it_was():
    net = torch.nn.Sequential(
        nn.Dropout(0.5), nn.FastDropout(torch.nn.Linear(2, 2), 0.2), nn.ConcreteDropout(2, 0.3)
    )
    with pytest.raises(InputError, match="below 1"):
        thinned.set_rate(net, 1.0)
    assert [m.p for m in net] == [0.5, 0.2, pytest.approx(0.3)]


def test_schedules_move_on():
    net = torch.nn.Sequential(
        nn.Dropout(Linear(0.0, 0.5, 10)), nn.SpecDropout(presets.gaussian_dropout(0.2))
    )
    thinned.set_rate(net, 0.3, lambda name, module: True)
    assert [m.p for m in net] == [0.3, 0.3]
    thinned.step(net, 10)
    assert [m.p for m in net] == [0.5, 0.3]


class Words(torch.nn.Module):
    """A block with a layer of torch, attention and functional dropout."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(4, 2, dropout=0.2)
        self.drop = torch.nn.Dropout(0.2)
        self.off = torch.nn.Dropout(0.0)

    def forward(self, x):
        x = self.off(self.drop(self.attention(x, x, x)[0]))
        return torch.nn.functional.dropout(x, 0.3, self.training)


def test_a_schedule_is_given_to_every_site_that_drops():
    """Module, attention and functional dropout drop half at first, and nothing after step 10."""
    model, x = Words(), torch.randn(3, 5, 4)
    with pytest.raises(InputError, match=r"attention \(Multi.*, drop \(Dropout\); .*replace"):
        thinned.set_rate(model, Early(0.5, until=10))
    thinned.replace(model)
    thinned.expose(model, x)
    edits = thinned.set_rate(model, Early(0.5, until=10))
    assert len(edits) == 3
    assert not len(thinned.set_rate(model, Early(0.5, until=10)))
    for step, rate in ((0, 0.5), (9, 0.5), (10, 0.0)):
        thinned.step(model, step)
        sites = thinned.find(model, x)
        assert {s.rate for s in sites if s.in_train} == ({rate} if rate else set())
    assert torch.equal(model(x), model(x))
    edits.undo()
    assert rates(model) == {"attention": 0.2, "drop": 0.2, "off": 0.0, "functional_dropout_0": 0.3}
    thinned.step(model, 10)
    assert model.drop.p == 0.2


def test_apply_takes_no_schedule():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"thinned.set_rate\(model, schedule\)"):
        thinned.apply(model, "hidden", torch.ones(1, 2), rate=Early(0.5, until=10))
