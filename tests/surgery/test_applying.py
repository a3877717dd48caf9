"""``apply``: rules, policies of studies, and what a model keeps; errors come before any change."""

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

from .models import (
    IMAGE,
    WORDS,
    Encoder,
    Functional,
    Residual,
    T,
    X,
    cnn,
    mlp,
    normed,
    rates,
    state,
)


def test_layers_that_a_key_does_not_reach_are_noted():
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


def test_rules_are_applied_in_order_each_to_the_result_of_the_last():
    net = T.Sequential(T.Linear(6, 6), T.Dropout(0.3), T.Linear(6, 2))
    before = state(net)
    policy = Policy(
        (
            PolicyRule("set rate", "1", 0.5),
            PolicyRule("replace", "1", None, "gaussian_dropout"),
            PolicyRule("insert after", "0", 0.2),
            PolicyRule("set rate", None, 0.1),
            PolicyRule("replace", "2", 0.4, "drop_connect"),
            PolicyRule("insert after", "2", 0.7),
        )
    )
    edits = thinned.apply(net, policy)
    assert rates(net) == {"0.dropout_after": 0.1, "1": 0.1, "2": 0.4, "2.dropout_after": 0.7}
    assert net[1].spec == presets.gaussian_dropout(0.1)
    assert not torch.equal(net(X), net(X))
    assert len(thinned.apply(net, policy)) == 0
    assert rates(net) == {"0.dropout_after": 0.1, "1": 0.1, "2": 0.4, "2.dropout_after": 0.7}
    edits.undo()
    assert state(net) == before


def test_the_last_of_two_rates_is_kept_however_often():
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
    assert layer.spec.name == "uniform_dropout"
    assert layer.p == 0.2
    assert len(thinned.apply(net, policy)) == 0
    assert net[0] is layer
    edits.undo()
    assert type(net[0]) is T.Dropout
    assert net[0].p == 0.1


def test_every_kind_of_where():
    relu = [
        PolicyRule("insert after", w, 0.5)
        for w in (
            T.ReLU,
            At("class", "ReLU"),
            At("class", "torch.nn.ReLU"),
            "1",
            At("name", "1"),
            r"^1$",
            lambda n, m: isinstance(m, T.ReLU),
        )
    ]
    for rule in relu:
        net = mlp()
        assert len(thinned.apply(net, Policy((rule,)))) == 1
        assert rates(net) == {"1.dropout_after": 0.5}
    net = Functional()
    thinned.apply(net, Policy((PolicyRule("insert before", At("call", "", "relu", 0, 0), 0.5),)), X)
    assert rates(net) == {"dropout_at_relu_0_0": 0.5}
    with pytest.raises(InputError, match="a function as where cannot be written to JSON"):
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


STUDY = {
    "format": 2,
    "method": "gaussian_dropout",
    "strength": "0.3",
    "companions": {"l2": 0.001},
    "network": {},
    "optimizer": {},
    "evidence": {},
    "sites": [
        {"where": "input", "spec": presets.dropout(0.2).to_json()},
        {"where": "hidden 1 of 2", "spec": presets.gaussian_dropout(0.3).to_json()},
        {"where": "hidden 2 of 2", "spec": presets.gaussian_dropout(0.4).to_json()},
    ],
}


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


def test_a_study_that_drops_weights_of_hidden_layers():
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


def test_optimizers_and_parameters_are_the_same_objects():
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


def test_modes_and_generators_are_unchanged():
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
    assert rates(net) == {
        "dropout_before": 0.2,
        "g.dropout_before": 0.5,
        "dropout_at_relu_0": 0.5,
    } or rates(net) == {
        "dropout_before": 0.2,
        "g.dropout_before": 0.5,
    }
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
    result, again = net.seen
    assert torch.equal(lengths, again)
    inside = torch.arange(5) < lengths[:, None]
    dropped = result == 0
    assert dropped[inside].any()
    torch.testing.assert_close(result[~dropped], quiet[~dropped] / 0.6)
    for row, length in zip(dropped, lengths, strict=True):  # locked in time
        assert torch.equal(row[:length], row[:1].expand(length, 8))


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
    (
        Policy((PolicyRule("set rate", None, 0.5), PolicyRule("insert after", T.Conv2d, 0.5))),
        (),
        {},
        r"rule 2 \(insert after class .*Conv2d",
    ),
    (
        Policy((PolicyRule("insert after", T.ReLU, 0.5), PolicyRule("insert after", "relu9", 0.5))),
        (),
        {},
        "rule 2 .*'relu9' names no module",
    ),
    (
        Policy(
            (
                PolicyRule("insert after", "1", 0.5),
                PolicyRule("insert after", "3", 0.5),
                PolicyRule("replace", "2", 0.5, "gaussian_dropout"),
            )
        ),
        (),
        {},
        "rule 3 .*Linear, which only a drop of weights",
    ),
    (
        Policy((PolicyRule("insert after", "1", 0.5), PolicyRule("set rate", "2", 0.5))),
        (),
        {},
        "rule 2 .*names no layer with a rate",
    ),
    (
        Policy(
            (
                PolicyRule("insert after", "1", 0.5),
                PolicyRule("insert after", At("name", "one"), 0.5),
            )
        ),
        (),
        {},
        "unknown module 'one'",
    ),
    (
        Policy(
            (PolicyRule("insert after", "1", 0.5), PolicyRule("set rate", At("name", "2"), 0.5))
        ),
        (),
        {},
        "2 is not a layer with a rate",
    ),
    (Policy((PolicyRule("insert after", At("place", "hidden"), 0.5),)), (), {}, "pass its inputs"),
    (
        Policy((PolicyRule("insert after", At("place", "middle"), 0.5),)),
        (X,),
        {},
        "a place is 'input', 'hidden'",
    ),
    (
        Policy((PolicyRule("insert after", At("place", "hidden x of 2"), 0.5),)),
        (X,),
        {},
        "a place is 'input', 'hidden'",
    ),
    (
        Policy((PolicyRule("set rate", At("place", "hidden"), 0.5),)),
        (X,),
        {},
        "no layer with a rate of its own",
    ),
    (Policy((PolicyRule("insert after", At("call", "", "relu"), 0.5),)), (), {}, "pass its inputs"),
    (
        Policy((PolicyRule("insert after", At("call", "", "relu"), 0.5),)),
        (X,),
        {},
        "Sequential, which runs its children",
    ),
    (
        Policy((PolicyRule("insert after", At("call", "1", "relu", 3), 0.5),)),
        (X,),
        {},
        "calls relu at 1 place",
    ),
]


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
    with pytest.raises(InputError, match="does not recognize this model"):
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
