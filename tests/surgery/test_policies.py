"""``apply``: the places of automatic policies against lists written by hand, rules, files, and that
undoing is exact.
"""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from torch.nn import functional as F

import thinned
from thinned import At, InputError, Policy, PolicyRule, nn, presets
from thinned.nn.module import dropout_modules
from thinned.surgery import policies
from thinned.surgery.flow import branches
from thinned.surgery.rule_makers import on_branch
from thinned.surgery.trace import trace

GEN = torch.Generator().manual_seed(0)
X = torch.randn(4, 6, generator=GEN)
IMAGE = torch.randn(4, 1, 8, 8, generator=GEN)
WORDS = torch.randint(0, 20, (3, 5), generator=GEN)
T = torch.nn


def mlp():
    return T.Sequential(T.Linear(6, 16), T.ReLU(), T.Linear(16, 16), T.GELU(), T.Linear(16, 3))


def cnn():
    return T.Sequential(
        T.Conv2d(1, 4, 3),
        T.ReLU(),
        T.MaxPool2d(2),
        T.Flatten(),
        T.Linear(36, 8),
        T.ReLU(),
        T.Dropout(0.3),
        T.Linear(8, 3),
    )


def pooled():
    """Dropout behind pooling and flattening."""
    return T.Sequential(
        T.Conv2d(1, 4, 3), T.ReLU(), T.MaxPool2d(2), T.Dropout(0.1), T.Flatten(), T.Linear(36, 3)
    )


def normed():
    return T.Sequential(
        T.Conv2d(1, 4, 3),
        T.BatchNorm2d(4),
        T.ReLU(),
        T.Conv2d(4, 4, 3),
        T.ReLU(),
        T.BatchNorm2d(4),
        T.Flatten(),
        T.Linear(64, 3),
    )


class Block(T.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = T.Conv2d(4, 4, 3, padding=1), T.BatchNorm2d(4)
        self.conv2, self.bn2 = T.Conv2d(4, 4, 3, padding=1), T.BatchNorm2d(4)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return F.relu(y)


class Residual(T.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.head = (
            T.Conv2d(1, 4, 3),
            T.Sequential(*(Block() for _ in range(4))),
            T.Linear(4, 3),
        )

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Loop(T.Module):
    """Residual blocks in one module's code."""

    def __init__(self, outside=False):
        super().__init__()
        self.stem, self.fs, self.out = (
            T.Linear(6, 8),
            T.ModuleList(T.Linear(8, 8) for _ in range(4)),
            T.Linear(8, 2),
        )
        self.outside = outside

    def forward(self, x):
        x = self.stem(x)
        for f in self.fs:
            x = x + (F.relu(f(x)) if self.outside else f(F.relu(x)))
        return self.out(x)


class Encoder(T.Module):
    def __init__(self, rate=0.0):
        super().__init__()
        self.words, self.places = T.Embedding(20, 8), T.Embedding(10, 8)
        layer = T.TransformerEncoderLayer(8, 2, 16, dropout=rate, batch_first=True)
        self.enc, self.out = T.TransformerEncoder(layer, 2), T.Linear(8, 20)

    def forward(self, i):
        return self.out(self.enc(self.words(i) + self.places(torch.arange(i.shape[1]))))


class Vision(T.Module):
    """Patches, then attention."""

    def __init__(self):
        super().__init__()
        self.patches, self.out = T.Conv2d(1, 8, 4, stride=4), T.Linear(8, 3)
        self.blocks = T.ModuleList(
            T.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)
        )

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean(1))


class Language(T.Module):
    def __init__(self, first=True):
        super().__init__()
        self.words, self.core, self.out = (
            T.Embedding(20, 8),
            T.LSTM(8, 8, 2, batch_first=first),
            T.Linear(8, 20),
        )

    def forward(self, i):
        return self.out(self.core(self.words(i))[0])


class GCNConv(T.Module):
    """Known by its name, as a library's is."""

    def __init__(self, a, b):
        super().__init__()
        self.lin = T.Linear(a, b)

    def forward(self, x, edges):
        return torch.zeros(x.shape[0], self.lin.out_features).index_add(
            0, edges[1], self.lin(x)[edges[0]]
        )


class Graph(T.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = GCNConv(6, 8), GCNConv(8, 2)

    def forward(self, x, edges):
        return self.two(F.relu(self.one(x, edges)), edges)


EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


class Functional(T.Module):
    """Activations in the code, one of them twice by two ways, and a gate."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.gate = (
            T.Linear(6, 8),
            T.Linear(8, 8),
            T.Linear(8, 3),
            T.Linear(8, 8),
        )

    def forward(self, x):
        h = F.relu(self.a(x))
        h = torch.tanh(self.b(h)) * torch.sigmoid(self.gate(h))
        return torch.sigmoid(self.c(h))


class Shared(T.Module):
    """One activation module for two places, one linear layer called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.act, self.out = (
            T.Linear(6, 8),
            T.Linear(8, 8),
            T.ReLU(),
            T.Linear(8, 3),
        )

    def forward(self, x):
        h = self.act(self.first(x))
        for _ in range(2):
            h = self.act(self.again(h))
        return self.out(h)


class Drawing(T.Module):
    """Functional dropout after the activation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = T.Linear(6, 8), T.Linear(8, 3)

    def forward(self, x):
        return self.b(F.dropout(F.relu(self.a(x)), 0.3, self.training))


def heads2():
    class Two(T.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = T.Linear(6, 8), T.Linear(8, 3), T.Linear(8, 2)

        def forward(self, x):
            h = F.relu(self.body(x))
            return {"first": self.a(h), "more": {"second": self.b(h)}}

    return Two()


LAYERED = "enc.layers.{}.{}"
PATHS = {f"blocks.{i}.bn2.dropout_after": (i + 1) / 4 for i in range(4)}
# model, inputs, policy: the layers and their rates as the papers have them, after it is applied
CASES = {
    "mlp hidden": (mlp, (X,), "hidden", {"1.dropout_after": 0.5, "3.dropout_after": 0.5}),
    "mlp head": (mlp, (X,), "head", {"4.dropout_before": 0.5}),
    "mlp input": (mlp, (X,), "input", {"0.dropout_before": 0.2}),
    "mlp paper": (mlp, (X,), "paper", {"0.dropout_before": 0.2, "1.dropout_after": 0.5, "3.dropout_after": 0.5}),
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
    "loop depth": (Loop, (X,), "depth", {f"fs.{i}.dropout_after": 0.125 * (i + 1) for i in range(4)}),
    "loop outside": (lambda: Loop(True), (X,), "depth", {"dropout_at_add_0_1": 0.5}),
    "encoder paper": (
        Encoder, (WORDS,), "paper",
        {LAYERED.format(i, n): 0.1 for i in (0, 1) for n in ("dropout1", "dropout2", "self_attn")}
        | {LAYERED.format(i, "dropout"): 0.0 for i in (0, 1)} | {"enc.layers.0.dropout_before": 0.1},
    ),
    "encoder depth": (
        lambda: Encoder(0.1), (WORDS,), "depth",
        {LAYERED.format(i, n): 0.1 for i in (0, 1) for n in ("dropout", "dropout1", "dropout2", "self_attn")}
        | {LAYERED.format(i, f"{n}.dropout_after"): 0.25 * (i + 1) for i in (0, 1) for n in ("dropout1", "dropout2")},
    ),
    "encoder hidden": (
        Encoder, (WORDS,), "hidden",
        {LAYERED.format(i, n): 0.0 for i in (0, 1) for n in ("dropout1", "dropout2", "self_attn")}
        | {LAYERED.format(i, "dropout"): 0.5 for i in (0, 1)},
    ),
    "vision paper": (
        Vision, (IMAGE,), "paper",
        {f"blocks.{i}.{n}": 0.0 for i in (0, 1) for n in ("dropout", "dropout1", "dropout2", "self_attn")}
        | {f"blocks.{i}.{n}.dropout_after": 0.05 * (i + 1) for i in (0, 1) for n in ("dropout1", "dropout2")},
    ),
    "language paper": (Language, (WORDS,), "paper", {"words.dropout_after": 0.4, "core": 0.25, "core.dropout_after": 0.4}),
    "language head": (Language, (WORDS,), "head", {"core": 0.0, "out.dropout_before": 0.5}),
    "graph paper": (Graph, (X, EDGES), "paper", {"one.dropout_before": 0.5, "two.dropout_before": 0.5}),
    "functional hidden": (Functional, (X,), "hidden", {"dropout_at_relu_0": 0.5, "dropout_at_tanh_0": 0.5}),
    "functional head": (Functional, (X,), "head", {"c.dropout_before": 0.5}),
    "shared hidden": (Shared, (X,), "hidden", {"act.dropout_after": 0.5}),
    "shared paper": (Shared, (X,), "paper", {"first.dropout_before": 0.2, "act.dropout_after": 0.5}),
    "two heads": (heads2, (X,), "head", {"a.dropout_before": 0.5, "b.dropout_before": 0.5}),
}  # fmt: skip
# where no layer stands inside the model, the input's layer is the model's own child
INPUTS = {"shared paper": {"dropout_before": 0.2, "act.dropout_after": 0.5}}


def rates(model):
    from thinned.surgery.rates import rate_of

    return {n: getattr(m, rate_of(m)) for n, m in model.named_modules() if rate_of(m) is not None}


def state(model):
    """All that undoing has to restore."""
    return (
        [(n, id(m), type(m), m.training) for n, m in model.named_modules()],
        [(n, id(p)) for n, p in model.named_parameters()],
        list(model.state_dict()),
        [
            (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()))
            for m in model.modules()
        ],
        [(m._forward_hooks_with_kwargs, m._forward_pre_hooks_with_kwargs) for m in model.modules()],
        [m.__dict__.get("forward") for m in model.modules()],
        rates(model),
    )


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
    net.load_state_dict(values)  # the passes moved batch normalisation
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
    assert any("DropWeight" in n for n in thinned.apply(Language(), "paper", WORDS).notes)
    shifted = thinned.apply(normed(), Policy((PolicyRule("insert after", "4", 0.5),)), IMAGE).notes
    assert any("batch normalisation" in n for n in shifted)


def test_layers_that_a_key_does_not_know_are_told():
    net = mlp()
    thinned.insert(net, 0.5, after="1")
    thinned.key(net, seed=0).at(1)
    assert any("thinned.key again" in n for n in thinned.apply(net, "input", X).notes)
    assert not any("thinned.key" in n for n in thinned.apply(net, "input", X, rate=0.1).notes)
    thinned.key_of(net).remove()
    key = thinned.key(net, seed=0)
    key.at(1)
    first = net(X)
    key.at(1)
    assert torch.equal(net(X), first)


def test_functional_dropout_is_not_doubled():
    net = Drawing()
    with pytest.raises(InputError, match=r"functional dropout follows .*thinned.expose"):
        thinned.apply(net, "hidden", X)
    thinned.expose(net, X)
    thinned.apply(net, "hidden", X)
    assert rates(net) == {"functional_dropout_0": 0.5}


def test_the_locked_law_is_constant_in_time():
    for first in (True, False):
        net = Language(first)
        thinned.apply(net, "paper", WORDS)
        x = torch.ones(6, 7, 8)
        fell = net.core.dropout_after(x) == 0
        time = 1 if first else 0
        assert fell.any()
        assert not fell.all()
        assert torch.equal(fell, fell.select(time, 0).unsqueeze(time).expand_as(fell))


def test_dropout_happens_where_it_is_said():
    """The mean share of zeros over 200 passes, within 4.9 standard errors of the rate (alpha 1e-6)."""
    net = Functional()
    seen = []
    net.gate.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    thinned.apply(net, "hidden", X, rate=0.3)
    quiet = copy.deepcopy(net).eval()
    for _ in range(200):
        net(X)
    quiet(X)
    alive = seen.pop() > 0
    fell = torch.stack([s[alive] == 0 for s in seen]).double().mean().item()
    assert abs(fell - 0.3) < 4.9 * (0.3 * 0.7 / (200 * int(alive.sum()))) ** 0.5


# rules


def test_rules_are_done_in_order_each_in_what_the_last_one_left():
    net = T.Sequential(T.Linear(6, 6), T.Dropout(0.3), T.Linear(6, 2))
    before = state(net)
    policy = Policy((PolicyRule("set rate", "1", 0.5), PolicyRule("replace", "1", None, "gaussian_dropout"), PolicyRule("insert after", "0", 0.2),
                     PolicyRule("set rate", None, 0.1), PolicyRule("replace", "2", 0.4, "drop_connect"),
                     PolicyRule("insert after", "2", 0.7)))  # fmt: skip
    edits = thinned.apply(net, policy)
    assert rates(net) == {"0.dropout_after": 0.1, "1": 0.1, "2": 0.4, "2.dropout_after": 0.7}
    assert net[1].drop == presets.gaussian_dropout(0.1)
    assert not torch.equal(net(X), net(X))
    assert len(thinned.apply(net, policy)) == 0
    assert rates(net) == {"0.dropout_after": 0.1, "1": 0.1, "2": 0.4, "2.dropout_after": 0.7}
    edits.undo()
    assert state(net) == before


def test_the_last_of_two_rates_stays_however_often():
    net = T.Sequential(T.Dropout(0.3))
    policy = Policy((PolicyRule("set rate", "0", 0.5), PolicyRule("set rate", "0", 0.1)))
    for _ in range(3):
        thinned.apply(net, policy)
        assert net[0].p == 0.1
    policy = Policy(
        (
            PolicyRule("replace", None, 0.5, "gaussian_dropout"),
            PolicyRule("replace", "0", 0.2, "uniform_dropout"),
        )
    )
    edits = thinned.apply(net, policy)
    layer = net[0]
    assert layer.drop.name == "uniform_dropout"
    assert layer.p == 0.2
    assert len(thinned.apply(net, policy)) == 0
    assert net[0] is layer
    edits.undo()
    assert type(net[0]) is T.Dropout
    assert net[0].p == 0.1


def test_wheres_of_a_rule():
    relu = [PolicyRule("insert after", w, 0.5) for w in (T.ReLU, At("class", "ReLU"), At("class", "torch.nn.ReLU"), "1",
                                                   At("name", "1"),
                                                   r"^1$", lambda n, m: isinstance(m, T.ReLU))]  # fmt: skip
    for rule in relu:
        net = mlp()
        assert len(thinned.apply(net, Policy((rule,)))) == 1
        assert rates(net) == {"1.dropout_after": 0.5}
    net = Functional()
    thinned.apply(net, Policy((PolicyRule("insert before", At("call", "", "relu", 0, 0), 0.5),)), X)
    assert rates(net) == {"dropout_at_relu_0_0": 0.5}
    with pytest.raises(InputError, match="function cannot be written down"):
        relu[-1].to_json()
    net = cnn()
    thinned.apply(net, Policy((PolicyRule("replace", None, None, "drop_block"),)))
    assert net[6].spec.name == "drop_block"
    assert net[6].p == 0.3
    assert isinstance(net[4], T.Linear)


def test_a_rate_for_all_places():
    net = mlp()
    thinned.apply(
        net,
        Policy((PolicyRule("insert after", T.ReLU, 0.5), PolicyRule("insert after", T.GELU, 0.1))),
        rate=0.25,
    )
    assert rates(net) == {"1.dropout_after": 0.25, "3.dropout_after": 0.25}


# a study's policy

STUDY = {
    "format": 1, "arm": "gaussian", "strength": "0.3", "companions": {"l2": 0.001},
    "network": {}, "optimizer": {}, "evidence": {},
    "sites": [
        {"where": "input", "spec": presets.dropout(0.2).to_json()},
        {"where": "hidden 1 of 2", "spec": presets.gaussian_dropout(0.3).to_json()},
        {"where": "hidden 2 of 2", "spec": presets.gaussian_dropout(0.4).to_json()},
    ],
}  # fmt: skip


def test_a_studys_policy_applies(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(STUDY))
    net = mlp()
    before = state(net)
    edits = thinned.apply(net, path, X)
    assert rates(net) == {"0.dropout_before": 0.2, "1.dropout_after": 0.3, "3.dropout_after": 0.4}
    assert [m.spec for _, m in dropout_modules(net)][1:] == [
        presets.gaussian_dropout(0.3),
        presets.gaussian_dropout(0.4),
    ]
    assert any("l2 = 0.001" in n for n in edits.notes)
    assert len(thinned.apply(net, path, X)) == 0
    edits.undo()
    assert state(net) == before
    with pytest.raises(
        InputError, match=r"2 hidden activations, and this model has 1: name 1; give rules"
    ):
        thinned.apply(mlp()[:3], path, X)
    with pytest.raises(InputError, match="pass its inputs"):
        thinned.apply(mlp(), path)


def test_a_studys_policy_takes_the_layers_that_are_there(tmp_path):
    net = T.Sequential(
        T.Linear(6, 8),
        T.ReLU(),
        T.Dropout(0.1),
        T.Linear(8, 8),
        T.ReLU(),
        T.Dropout(0.1),
        T.Linear(8, 2),
    )
    policy = Policy.from_json(STUDY)
    thinned.apply(net, policy, X)
    assert rates(net) == {"0.dropout_before": 0.2, "2": 0.3, "5": 0.4}
    assert net[2].spec == presets.gaussian_dropout(0.3)
    assert len(thinned.apply(net, policy, X)) == 0


def test_a_studys_weights_of_hidden_layers():
    data = STUDY | {
        "sites": [
            {
                "where": "weights of hidden layers",
                "spec": {"law": {"bernoulli": {"p": 0.4}}, "name": "drop_connect"},
            }
        ]
    }
    net = mlp()
    before = state(net)
    edits = thinned.apply(net, Policy.from_json(data), X)
    assert rates(net) == {"0": 0.4, "2": 0.4}
    assert len(thinned.apply(net, Policy.from_json(data), X)) == 0
    edits.undo()
    assert state(net) == before


# what stays


def test_optimizers_parameters_and_training_go_on():
    net = Residual()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    before, places = state(net), [id(p) for p in optimizer.param_groups[0]["params"]]
    edits = thinned.apply(net, "depth", IMAGE)
    old = net.head.weight.detach().clone()
    net(IMAGE).square().sum().backward()
    optimizer.step()
    assert [id(p) for p in net.parameters()] == places
    assert not torch.equal(old, net.head.weight)
    assert sorted(net.state_dict()) == sorted(Residual().state_dict())
    Residual().load_state_dict(net.state_dict())
    net.eval()
    quiet = net(IMAGE)
    edits.undo()
    assert state(net)[1:3] == before[1:3]
    assert [n[:3] for n in state(net)[0]] == [n[:3] for n in before[0]]
    assert torch.equal(net.eval()(IMAGE), quiet)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types(dtype):
    net = mlp().to(dtype)
    thinned.apply(net, "paper", X.to(dtype))
    assert net(X.to(dtype)).dtype == dtype
    net.double()
    assert net(X.double()).dtype == torch.float64


def test_hooks_parametrizations_tied_weights_and_copies():
    net = Encoder()
    net.out = T.Linear(8, 20, bias=False)
    net.out.weight = net.words.weight
    calls = []
    net.out.register_forward_pre_hook(lambda *_: calls.append(1))
    torch.nn.utils.parametrizations.spectral_norm(net.enc.layers[0].linear1)
    vector = net.enc.layers[0].linear1.parametrizations.weight[0]._u.clone()
    before = state(net)
    edits = thinned.apply(net, "head", WORDS)
    assert torch.equal(net.enc.layers[0].linear1.parametrizations.weight[0]._u, vector)
    assert net.out.weight is net.words.weight
    calls.clear()
    net(WORDS)
    assert len(calls) == 1
    twin = copy.deepcopy(net)
    assert not torch.equal(twin(WORDS), twin(WORDS))
    edits.undo()
    assert state(net) == before
    assert rates(twin) != rates(net)


@pytest.mark.parametrize("make", [mlp, Functional])
def test_compiled_models(make):
    net = make()
    compiled = torch.compile(net, backend="eager")
    first = compiled.eval()(X)
    edits = thinned.apply(compiled, "hidden", X)
    assert len(edits) == 2
    compiled.train()
    assert not torch.equal(compiled(X), compiled(X))
    torch.testing.assert_close(compiled.eval()(X), first)
    edits.undo()
    compiled.train()
    assert torch.equal(compiled(X), compiled(X))


def test_modes_and_generators_stay():
    net = normed()
    net[1].eval()
    modes, buffers = [m.training for m in net.modules()], copy.deepcopy(dict(net.named_buffers()))
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    thinned.apply(net, "head", IMAGE)
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in net.modules() if not isinstance(m, nn.Dropout)] == modes
    assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    net = normed()
    with context():
        edits = thinned.apply(net, "hidden", torch.randn(4, 1, 8, 8))
    net(IMAGE).sum().backward()
    assert net[0].weight.grad is not None
    with context():
        edits.undo()
    assert rates(net) == {}


def test_ranks():
    import torch.distributed as dist

    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        net = T.parallel.DistributedDataParallel(mlp())
        before = state(net)
        edits = thinned.apply(net, "paper", X)
        assert rates(net) == {
            "dropout_before": 0.2,
            "module.1.dropout_after": 0.5,
            "module.3.dropout_after": 0.5,
        }
        net(X).sum().backward()
        assert len(thinned.apply(net, "paper", X)) == 0
        edits.undo()
        assert state(net) == before
    finally:
        dist.destroy_process_group()


# inputs and outputs of all shapes


class Named(T.Module):
    def __init__(self, result):
        super().__init__()
        self.f, self.g, self.result = T.Linear(6, 8), T.Linear(8, 2), result

    def forward(self, *, x, mask=None):
        return self.result(self.g(F.relu(self.f(input=x))))


@dataclasses.dataclass
class Record:
    logits: torch.Tensor


SHAPES = [
    lambda y: {"out": {"logits": y}, "none": None},
    Record,
    lambda y: [y, 3],
    lambda y: (y, (y, y)),
    lambda y: y,
]


@pytest.mark.parametrize("result", SHAPES)
def test_inputs_by_name_and_results_in_records(result):
    net = Named(result)
    thinned.apply(net, "head", x=X, mask=torch.ones(2))
    thinned.apply(net, "paper", x=X)
    assert rates(net) == {"dropout_before": 0.2, "g.dropout_before": 0.5, "dropout_at_relu_0": 0.5} or rates(net) == {
        "dropout_before": 0.2, "g.dropout_before": 0.5,
    }  # fmt: skip
    net(mask=None, x=X)
    thinned.apply(net, Policy((PolicyRule("insert before", "f", 1.0),)))
    assert torch.equal(net.f(input=X), net.f.bias.expand(4, 8))


def test_a_model_without_results():
    net = Named(lambda _: None)
    thinned.apply(net, "hidden", x=X)
    assert rates(net) == {"dropout_at_relu_0": 0.5}
    with pytest.raises(InputError, match="not that of one last layer"):
        thinned.apply(net, "head", x=X)


class Packed(T.Module):
    def __init__(self, first):
        super().__init__()
        self.words, self.core, self.out = (
            T.Embedding(20, 8),
            T.LSTM(8, 8, 1, batch_first=first),
            T.Linear(8, 20),
        )

    def forward(self, i):
        lengths = torch.tensor([2, 5, 4])
        x = torch.nn.utils.rnn.pack_padded_sequence(
            self.words(i), lengths, True, enforce_sorted=False
        )
        packed = self.core(x)[0]
        self.seen = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
        return self.out(self.seen[0])


@pytest.mark.parametrize("first", [True, False])
def test_packed_sequences(first):
    net = Packed(first)
    net(WORDS)
    quiet, lengths = net.seen
    thinned.apply(net, "paper", WORDS)
    thinned.set_rate(net, 0.0, where="words.dropout_after")
    net(WORDS)
    dropped, again = net.seen
    assert torch.equal(lengths, again)
    inside = torch.arange(5) < lengths[:, None]
    fell = dropped == 0
    assert fell[inside].any()
    torch.testing.assert_close(dropped[~fell], quiet[~fell] / 0.6)
    for row, length in zip(fell, lengths, strict=True):  # locked in time
        assert torch.equal(row[:length], row[:1].expand(length, 8))


def test_what_is_no_tensor_is_an_error_at_the_call():
    net = T.Sequential(heads2())
    thinned.insert(net, 0.5, after="0")
    with pytest.raises(InputError, match="stands at a Two and drops tensors, but got a dict"):
        net(X)


def test_named_tuples_stay_such():
    from collections import namedtuple

    pair = namedtuple("pair", "out state")

    class Core(T.Module):
        def forward(self, x):
            return pair(x, 3)

    net = Core()
    thinned.insert(net, 1.0, after="")
    assert isinstance(net(X), pair)
    assert not net(X).out.any()
    assert net(X).state == 3


# errors


def scripted():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        return torch.jit.script(T.Linear(6, 2))


class Raising(T.Module):
    def __init__(self):
        super().__init__()
        self.bn, self.f = T.BatchNorm1d(6), T.Linear(6, 2)

    def forward(self, x):
        self.f(F.relu(self.bn(x)))
        raise RuntimeError("from the model")


@pytest.mark.parametrize("policy", ["hidden", "head", "depth", "input", "paper"])
def test_a_model_that_raises_is_left_as_it_was(policy):
    net = Raising().eval()
    before, buffers = state(net), copy.deepcopy(dict(net.named_buffers()))
    with pytest.raises(RuntimeError, match="from the model"):
        thinned.apply(net, policy, X)
    assert state(net) == before
    assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())


ERRORS = [
    ("hiden", (X,), {}, "unknown policy 'hiden'; did you mean 'hidden'"),
    ("missing.json", (), {}, "missing.json cannot be read as a policy"),
    (3, (), {}, "policy has to be a Policy, a file or one of hidden, head"),
    ("hidden", (), {}, "pass its inputs"),
    ("hidden", (0.5,), {}, "rate=0.5"),
    ("hidden", (X,), {"rate": 1.5}, "rate has to be between 0 and 1, but got 1.5"),
    ("hidden", (X,), {"rate": 50}, "for 50 percent write 0.5"),
    ("hidden", (X,), {"rate": -0.1}, "between 0 and 1"),
    ("hidden", (X,), {"rate": float("nan")}, "finite"),
    ("hidden", (X,), {"rate": "much"}, "a number"),
    ("paper", (X,), {"rate": 0.5}, "rates of its own"),
    ("depth", (X,), {}, "no residual branch"),
    (Policy((PolicyRule("set rate", None, 0.5), PolicyRule("insert after", T.Conv2d, 0.5))), (), {},
     r"rule 2 \(insert after class .*Conv2d"),
    (Policy((PolicyRule("insert after", T.ReLU, 0.5), PolicyRule("insert after", "relu9", 0.5))), (), {},
     "rule 2 .*'relu9' names no module"),
    (Policy((PolicyRule("insert after", "1", 0.5), PolicyRule("insert after", "3", 0.5), PolicyRule("replace", "2", 0.5, "gaussian_dropout"))), (), {},
     "rule 3 .*Linear, which only a drop of weights"),
    (Policy((PolicyRule("insert after", "1", 0.5), PolicyRule("set rate", "2", 0.5))), (), {}, "rule 2 .*names no layer with a rate"),
    (Policy((PolicyRule("insert after", "1", 0.5), PolicyRule("insert after", At("name", "one"), 0.5))), (), {}, "unknown module 'one'"),
    (Policy((PolicyRule("insert after", "1", 0.5), PolicyRule("set rate", At("name", "2"), 0.5))), (), {}, "2 is no layer with a rate"),
    (Policy((PolicyRule("insert after", At("place", "hidden"), 0.5),)), (), {}, "pass its inputs"),
    (Policy((PolicyRule("insert after", At("place", "middle"), 0.5),)), (X,), {}, "a place is 'input', 'hidden'"),
    (Policy((PolicyRule("insert after", At("place", "hidden x of 2"), 0.5),)), (X,), {}, "a place is 'input', 'hidden'"),
    (Policy((PolicyRule("set rate", At("place", "hidden"), 0.5),)), (X,), {}, "no layer with a rate of its own"),
    (Policy((PolicyRule("insert after", At("call", "", "relu"), 0.5),)), (), {}, "pass its inputs"),
    (Policy((PolicyRule("insert after", At("call", "", "relu"), 0.5),)), (X,), {}, "Sequential, whose children"),
    (Policy((PolicyRule("insert after", At("call", "1", "relu", 3), 0.5),)), (X,), {}, "calls relu at 1 place"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "inputs", "named", "message"), ERRORS)
def test_errors_come_before_any_change(policy, inputs, named, message):
    net = T.Sequential(*mlp(), T.Dropout(0.1))
    before = state(net)
    with pytest.raises(InputError, match=message):
        thinned.apply(net, policy, *inputs, **named)
    assert state(net) == before


def test_models_that_cannot_be_read():
    with pytest.raises(InputError, match="real numbers"):
        thinned.apply(Encoder(), "input", WORDS)
    with pytest.raises(InputError, match="this model is none of those"):
        thinned.apply(T.Sequential(T.Conv2d(1, 2, 3), T.ReLU()), "paper", IMAGE)
    with pytest.raises(InputError, match="scripted"):
        thinned.apply(scripted(), "hidden", X)
    lazy = T.Sequential(T.LazyLinear(3), T.LazyBatchNorm1d(), T.ReLU(), T.LazyLinear(2))
    for attempt in (
        lambda: thinned.apply(lazy, "hidden", X),
        lambda: thinned.find(lazy, X),
        lambda: thinned.strip(lazy, X),
    ):
        with pytest.raises(InputError, match=r"0.weight is lazy"):
            attempt()
    assert isinstance(lazy[0], T.LazyLinear)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolicyRule("drop", "x", 0.5), "unknown thing to do 'drop'"),
        (lambda: PolicyRule("insert after", None, 0.5), "needs a where"),
        (
            lambda: PolicyRule("insert after", 3, 0.5),
            "where has to be a name, a class or a function",
        ),
        (
            lambda: PolicyRule("insert after", "x", 2.0),
            "the rate to insert after has to be between 0 and 1",
        ),
        (lambda: PolicyRule("insert after", "x", 0.5, "dropuot"), "dropout"),
        (lambda: PolicyRule("insert after", "x", 0.5, 7), "a preset's name or a Drop"),
        (lambda: PolicyRule("set rate", "x"), "needs a rate"),
        (lambda: PolicyRule("set rate", "x", 0.5, "gaussian_dropout"), "takes no spec"),
        (lambda: At("names", "x"), "unknown kind of where 'names'"),
        (lambda: At("name", 3), "has to be a string"),
        (lambda: At("call", "x"), "has a function"),
        (lambda: At("name", "x", "relu"), "has a function"),
        (lambda: Policy(("hidden",)), "a policy holds rules"),
        (lambda: Policy.from_json([]), "a policy has to be an object"),
        (lambda: Policy.from_json({"format": 2, "rules": []}), "format 2"),
        (lambda: Policy.from_json({"rules": []}), "a policy lacks 'format'"),
        (lambda: Policy.from_json({"format": 1, "rules": {}}), "have to be lists"),
        (
            lambda: Policy.from_json({"format": 1, "rules": [], "rate": 1}),
            "unknown part of a policy 'rate'",
        ),
        (
            lambda: Policy.from_json({"format": 1, "rules": [{"do": "replace"}]}),
            "rule 1: a rule lacks 'where'",
        ),
        (
            lambda: Policy.from_json({"format": 1, "rules": [{"do": "replace", "where": 3}]}),
            "rule 1: where has to be",
        ),
        (
            lambda: Policy.from_json({"format": 1, "rules": [{"do": "replace", "where": {}}]}),
            "rule 1: where has to be one of",
        ),
        (
            lambda: Policy.from_json(
                {
                    "format": 1,
                    "rules": [
                        {
                            "do": "insert after",
                            "where": {"call": "relu", "module": "", "number": -1},
                        }
                    ],
                }
            ),
            "rule 1: number and operand",
        ),
        (
            lambda: Policy.from_json({"sites": [{"where": "input"}]}),
            "a site of a study's policy lacks 'drop'",
        ),
    ],
)
def test_records_that_mean_nothing(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_files_that_hold_none(tmp_path):
    for text in ("{", "[]", '"hidden"', "\ufeff"):
        (tmp_path / "policy.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError):
            thinned.apply(mlp(), tmp_path / "policy.json")


class Ending(T.Module):
    """A branch whose module ends with dropout itself, as attention in GPT-2 does."""

    def __init__(self, rate):
        super().__init__()
        self.branch = T.Sequential(T.Linear(8, 16), T.ReLU(), T.Linear(16, 8), T.Dropout(rate))

    def forward(self, x):
        return x + self.branch(x)


def test_a_branch_that_ends_with_dropout_has_its_rate_set():
    """One layer at an end and no second one behind it; drop path, which is another thing, comes
    beside it.
    """

    def net():
        torch.manual_seed(0)
        return T.Sequential(T.Linear(8, 8), Ending(0.3), Ending(0.0))

    def rules(model):
        seen = trace(model, (x,), {})
        return [on_branch(seen, branch, 0.1, None) for branch in branches(seen)]

    x = torch.randn(4, 8)
    assert rules(net()) == [
        PolicyRule("set rate", At("name", f"{i}.branch.3"), 0.1) for i in (1, 2)
    ]
    model = net()
    edits = thinned.apply(model, "depth", x, rate=0.2)
    assert [line.split(":")[0] for line in str(edits).splitlines()[:2]] == [
        "after 1.branch",
        "after 2.branch",
    ]
    assert model[1].branch[3].p == 0.3
    model = net()
    model[1].branch[3] = model[2].branch[3] = T.Dropout(0.3)  # one layer that ends both
    assert [rule.do for rule in rules(model)] == ["set rate"] * 2
    model.append(
        model[1].branch[3]
    )  # and stands elsewhere too, so its rate is not the branches' own
    assert [rule.do for rule in rules(model)] == ["insert after"] * 2
