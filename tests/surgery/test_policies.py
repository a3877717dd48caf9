"""Automatic policies: their places against lists written by hand, and that undoing is exact."""

from __future__ import annotations

import copy

import pytest
import torch

import thinned
from thinned import InputError, Policy, PolicyRule, presets
from thinned.nn.module import dropout_modules
from thinned.surgery import policies

from .models import (
    EDGES,
    IMAGE,
    WORDS,
    Block,
    Drawing,
    Encoder,
    Functional,
    Graph,
    Language,
    Loop,
    Residual,
    Shared,
    T,
    Vision,
    X,
    cnn,
    mlp,
    normed,
    pooled,
    rates,
    state,
    two_heads,
)

LAYERED = "enc.layers.{}.{}"
PATHS = {f"blocks.{i}.bn2.dropout_after": (i + 1) / 4 for i in range(4)}


# model, inputs, policy: the layers and their rates as the papers have them, after it is applied
CASES = {
    "mlp hidden": (mlp, (X,), "hidden", {"1.dropout_after": 0.5, "3.dropout_after": 0.5}),
    "mlp head": (mlp, (X,), "head", {"4.dropout_before": 0.5}),
    "mlp input": (mlp, (X,), "input", {"0.dropout_before": 0.2}),
    "mlp paper": (
        mlp,
        (X,),
        "paper",
        {"0.dropout_before": 0.2, "1.dropout_after": 0.5, "3.dropout_after": 0.5},
    ),
    "cnn hidden": (cnn, (IMAGE,), "hidden", {"1.dropout_after": 0.5, "6": 0.5}),
    "cnn head": (cnn, (IMAGE,), "head", {"6": 0.5}),
    "cnn input": (cnn, (IMAGE,), "input", {"0.dropout_before": 0.2, "6": 0.3}),
    "cnn paper": (cnn, (IMAGE,), "paper", {"6": 0.5}),
    "pooled hidden": (pooled, (IMAGE,), "hidden", {"3": 0.5}),
    "pooled head": (pooled, (IMAGE,), "head", {"3": 0.5}),
    "normed hidden": (normed, (IMAGE,), "hidden", {"2.dropout_after": 0.5}),
    "normed head": (normed, (IMAGE,), "head", {"7.dropout_before": 0.5}),
    "residual paper": (Residual, (IMAGE,), "paper", {n: 0.5 * r for n, r in PATHS.items()}),
    "residual depth": (Residual, (IMAGE,), "depth", {n: 0.5 * r for n, r in PATHS.items()}),
    "residual head": (Residual, (IMAGE,), "head", {"head.dropout_before": 0.5}),
    "loop depth": (
        Loop,
        (X,),
        "depth",
        {f"fs.{i}.dropout_after": 0.125 * (i + 1) for i in range(4)},
    ),
    "loop outside": (lambda: Loop(True), (X,), "depth", {"dropout_at_add_0_1": 0.5}),
    "encoder paper": (
        Encoder,
        (WORDS,),
        "paper",
        {LAYERED.format(i, n): 0.1 for i in (0, 1) for n in ("dropout1", "dropout2", "self_attn")}
        | {LAYERED.format(i, "dropout"): 0.0 for i in (0, 1)}
        | {"enc.layers.0.dropout_before": 0.1},
    ),
    "encoder depth": (
        lambda: Encoder(0.1),
        (WORDS,),
        "depth",
        {
            LAYERED.format(i, n): 0.1
            for i in (0, 1)
            for n in ("dropout", "dropout1", "dropout2", "self_attn")
        }
        | {
            LAYERED.format(i, f"{n}.dropout_after"): 0.25 * (i + 1)
            for i in (0, 1)
            for n in ("dropout1", "dropout2")
        },
    ),
    "encoder hidden": (
        Encoder,
        (WORDS,),
        "hidden",
        {LAYERED.format(i, n): 0.0 for i in (0, 1) for n in ("dropout1", "dropout2", "self_attn")}
        | {LAYERED.format(i, "dropout"): 0.5 for i in (0, 1)},
    ),
    "vision paper": (
        Vision,
        (IMAGE,),
        "paper",
        {
            f"blocks.{i}.{n}": 0.0
            for i in (0, 1)
            for n in ("dropout", "dropout1", "dropout2", "self_attn")
        }
        | {
            f"blocks.{i}.{n}.dropout_after": 0.05 * (i + 1)
            for i in (0, 1)
            for n in ("dropout1", "dropout2")
        },
    ),
    "language paper": (
        Language,
        (WORDS,),
        "paper",
        {"words.dropout_after": 0.4, "core": 0.25, "core.dropout_after": 0.4},
    ),
    "language head": (Language, (WORDS,), "head", {"core": 0.0, "out.dropout_before": 0.5}),
    "graph paper": (
        Graph,
        (X, EDGES),
        "paper",
        {"one.dropout_before": 0.5, "two.dropout_before": 0.5},
    ),
    "functional hidden": (
        Functional,
        (X,),
        "hidden",
        {"dropout_at_relu_0": 0.5, "dropout_at_tanh_0": 0.5},
    ),
    "functional head": (Functional, (X,), "head", {"c.dropout_before": 0.5}),
    "shared hidden": (Shared, (X,), "hidden", {"act.dropout_after": 0.5}),
    "shared paper": (
        Shared,
        (X,),
        "paper",
        {"first.dropout_before": 0.2, "act.dropout_after": 0.5},
    ),
    "two heads": (two_heads, (X,), "head", {"a.dropout_before": 0.5, "b.dropout_before": 0.5}),
}


# where no layer stands inside the model, the layer of the input is a child of the model itself
INPUTS = {"shared paper": {"dropout_before": 0.2, "act.dropout_after": 0.5}}


@pytest.mark.parametrize("name", CASES)
def test_the_places_are_the_papers(name):
    make, inputs, policy, expected = CASES[name]
    net = make()
    before, values = state(net), copy.deepcopy(net.state_dict())
    quiet = net.eval()(*inputs)
    net.train()
    edits = thinned.apply(net, policy, *inputs)
    assert rates(net) == pytest.approx(INPUTS.get(name, expected), abs=1e-12)
    assert edits.notes
    assert net.state_dict().keys() == values.keys()
    assert all(torch.equal(values[n], v) for n, v in net.state_dict().items())
    torch.testing.assert_close(net.eval()(*inputs), quiet)
    net.train()(*inputs)
    assert len(thinned.apply(net, policy, *inputs)) == 0
    edits.undo()
    assert state(net) == before
    net.load_state_dict(values)  # the passes moved batch normalization
    torch.testing.assert_close(net.eval()(*inputs), quiet, rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_an_automatic_policy_is_a_record_that_a_file_holds(name, tmp_path):
    make, inputs, kind, expected = CASES[name]
    made = getattr(policies, kind)(make(), *inputs)
    made.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == made
    assert Policy.load(tmp_path / "policy.json").notes == made.notes
    net = make()
    thinned.apply(net, tmp_path / "policy.json", *inputs)
    assert rates(net) == pytest.approx(INPUTS.get(name, expected), abs=1e-12)


@pytest.mark.parametrize("rate", [0.1, 0.37, 1.0])
def test_depth_is_equation_4(rate):
    """Huang et al. 2016: block l of L survives with 1 - l / L (1 - p_L), and p_L = 1 - rate."""
    net = Residual()
    thinned.apply(net, "depth", IMAGE, rate=rate)
    survive = [1.0 - (i / 4) * (1.0 - (1.0 - rate)) for i in range(1, 5)]
    assert [1 - p for p in rates(net).values()] == pytest.approx(survive)
    specs = [m.spec for _, m in dropout_modules(net)]
    assert all(p.per == presets.drop_path(0.1).per for p in specs)


def test_notes_say_what_was_left_out_and_why():
    assert any(
        "nothing after name 4" in n and "Li et al. 2019" in n
        for n in thinned.apply(normed(), "hidden", IMAGE).notes
    )
    assert any("one place for 4 sums" in n for n in thinned.apply(Loop(True), "depth", X).notes)
    assert not any("one place" in n for n in thinned.apply(Loop(), "depth", X).notes)
    again = T.Sequential(*[Block()] * 3)
    assert any(
        "bn2 is one place for 3 sums" in n
        for n in thinned.apply(again, "depth", IMAGE[:, [0] * 4]).notes
    )
    assert any("WeightDrop" in n for n in thinned.apply(Language(), "paper", WORDS).notes)
    shifted = thinned.apply(normed(), Policy((PolicyRule("insert after", "4", 0.5),)), IMAGE).notes
    assert any("batch normalization" in n for n in shifted)


def test_functional_dropout_is_not_doubled():
    net = Drawing()
    with pytest.raises(InputError, match=r"functional dropout is there .*thinned.expose"):
        thinned.apply(net, "hidden", X)
    thinned.expose(net, X)
    thinned.apply(net, "hidden", X)
    assert rates(net) == {"functional_dropout_0": 0.5}


def test_locked_dropout_is_constant_in_time():
    for first in (True, False):
        net = Language(first)
        thinned.apply(net, "paper", WORDS)
        x = torch.ones(6, 7, 8)
        dropped = net.core.dropout_after(x) == 0
        time = 1 if first else 0
        assert dropped.any()
        assert not dropped.all()
        assert torch.equal(dropped, dropped.select(time, 0).unsqueeze(time).expand_as(dropped))


def test_dropout_happens_where_the_policy_says():
    """The mean share of zeros over 200 passes is within 4.9 standard errors of the rate (alpha
    1e-6).
    """
    net = Functional()
    seen = []
    net.gate.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    thinned.apply(net, "hidden", X, rate=0.3)
    quiet = copy.deepcopy(net).eval()
    for _ in range(200):
        net(X)
    quiet(X)
    alive = seen.pop() > 0
    dropped = torch.stack([s[alive] == 0 for s in seen]).double().mean().item()
    assert abs(dropped - 0.3) < 4.9 * (0.3 * 0.7 / (200 * int(alive.sum()))) ** 0.5


class Graph(torch.nn.Module):
    """Kipf and Welling's network as it is mostly written, with functional dropout."""

    def __init__(self, drop):
        super().__init__()
        self.first, self.second = GCNConv(4, 8), GCNConv(8, 2)
        self.drop = drop

    def forward(self, x):
        x = torch.relu(self.first(x))
        if self.drop is None:
            x = torch.nn.functional.dropout(x, 0.5, self.training)
        else:
            x = self.drop(x)
        return self.second(x)


class GCNConv(torch.nn.Linear):
    pass


class Words(torch.nn.Module):
    """A word language model, with dropout behind the embedding and the recurrent layers."""

    def __init__(self, functional):
        super().__init__()
        self.embedding, self.lstm = torch.nn.Embedding(9, 4), torch.nn.LSTM(4, 4, 2)
        self.drop = torch.nn.Dropout(0.4)
        self.decoder = torch.nn.Linear(4, 9)
        self.functional = functional

    def dropped(self, x):
        if self.functional:
            return torch.nn.functional.dropout(x, 0.4, self.training)
        return self.drop(x)

    def forward(self, words):
        y, _ = self.lstm(self.dropped(self.embedding(words)))
        return self.decoder(self.dropped(y))


def dropped_before(model, name, *inputs):
    """The fraction of zeros in the input of a module, in training, with inputs that have none."""
    zeros = []
    module = model.get_submodule(name)
    handle = module.register_forward_pre_hook(lambda m, a: zeros.append((a[0] == 0).float().mean()))
    torch.manual_seed(0)
    for _ in range(40):
        model.train()(*inputs)
    handle.remove()
    return float(torch.stack(zeros).mean())


@pytest.mark.parametrize("functional", [False, True])
def test_paper_does_not_stack_dropout_on_dropout(functional):
    """The share of zeros before each layer is that of one dropout: 0.5, and 0.4 (of 480 draws and
    more in 40 passes, within 5 standard errors).
    """
    graph = Graph(None if functional else torch.nn.Dropout(0.1))
    with torch.no_grad():
        graph.first.bias.fill_(100.0)  # no zeros by ReLU
    edits = thinned.apply(graph, "paper", torch.ones(3, 4))
    assert dropped_before(graph, "second", torch.ones(3, 4)) == pytest.approx(0.5, abs=0.08)
    assert any("functional dropout is there" in note for note in edits.notes) == functional
    words = Words(functional)
    tokens = torch.randint(0, 9, (5, 3))
    edits = thinned.apply(words, "paper", tokens)
    for name in ("lstm", "decoder"):
        assert dropped_before(words, name, tokens) == pytest.approx(0.4, abs=0.05)
    assert any("functional dropout is there" in note for note in edits.notes) == functional


@pytest.mark.parametrize("policy", ["head", "input"])
def test_head_and_input_set_or_refuse_what_is_there(policy):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(torch.nn.functional.dropout(x, 0.3, self.training))

    with pytest.raises(InputError, match=r"functional dropout is there .*thinned.expose"):
        thinned.apply(Net(), policy, torch.ones(2, 4))
    net = Net()
    thinned.expose(net, torch.ones(2, 4))
    thinned.apply(net, policy, torch.ones(2, 4), rate=0.25)
    assert net.functional_dropout_0.p == 0.25
    assert dropped_before(net, "layer", torch.ones(20, 4)) == pytest.approx(0.25, abs=0.04)
