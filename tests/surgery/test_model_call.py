"""Models without ``forward``, batches of any kind, and losses computed inside."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned
from thinned import InputError
from thinned.surgery.model_call import ModelCall, copy_inputs

# code that runs the model on a batch and finds a dropout layer in it
CALLS = {
    "find": lambda model, *a, **k: thinned.find(model, *a, **k),
    "check": lambda model, *a, **k: thinned.check(model, *a, **k),
    "expose": lambda model, *a, **k: thinned.expose(model, *a, **k),
    "strip": lambda model, *a, **k: thinned.strip(model, *a, **k),
    "apply": lambda model, *a, **k: thinned.apply(model, "hidden", *a, rate=0.2, **k),
}


def rows(n=8):
    return torch.randn(n, 10, generator=torch.Generator().manual_seed(0))


class Agent(nn.Module):
    """Without ``forward``, with a loss of its own."""

    def __init__(self):
        super().__init__()
        self.actor, self.critic = nn.Linear(10, 16), nn.Linear(16, 3)

    def loss(self, batch):
        h = F.dropout(F.relu(self.actor(batch["x"])), 0.4, self.training)
        return F.cross_entropy(self.critic(h), batch["y"])


def batch():
    return {"x": rows(), "y": torch.arange(8) % 3}


def loss_of(model, batch):
    return model.loss(batch)


@pytest.mark.parametrize("name", CALLS)
def test_forward_runs_the_model(name):
    model = Agent()
    if name == "expose":  # no forward of a module makes the call
        (note,) = CALLS[name](model, batch(), forward=loss_of).notes
        assert "is called outside the forward of a module" in note
        return
    if name == "strip":
        (note,) = CALLS[name](model, batch(), forward=loss_of).notes
        assert "F.dropout" in note
        return
    if name == "apply":
        with pytest.raises(InputError, match="no hidden activation"):
            CALLS[name](model, batch(), forward=loss_of)
        model.actor = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        CALLS[name](model, batch(), forward=loss_of)
        torch.manual_seed(0)
        assert model.actor[1].dropout_after.p == 0.2
        assert model.loss(batch()) != model.loss(batch())
        return
    found = CALLS[name](model, batch(), forward=loss_of)
    if name == "find":
        (site,) = found
        assert (site.function, site.rate, site.name, site.module) == ("F.dropout", 0.4, "", "Agent")
        assert site.in_train
        assert not site.in_eval
    elif name == "check":
        assert found.codes == set()
        assert "L30" not in dict(found.unchecked)


def test_check_sees_mistakes_in_a_step():
    class Wrong(Agent):
        def loss(self, batch):
            return F.cross_entropy(self.critic(F.dropout(self.actor(batch["x"]))), batch["y"])

    assert thinned.check(Wrong(), batch(), forward=loss_of).codes == {"L1"}
    x = batch()
    assert thinned.check(Wrong(), forward=lambda model: model.loss(x)).codes == {"L1"}


@pytest.mark.parametrize("name", CALLS)
def test_errors_before_anything_runs(name):
    with pytest.raises(InputError, match="Agent has no forward; pass forward="):
        CALLS[name](Agent(), batch())
    with pytest.raises(InputError, match="forward has to be a function of the model"):
        CALLS[name](Agent(), batch(), forward=3)


def test_a_layer_that_would_never_run_is_refused():
    model = Agent()
    policy = thinned.Policy((thinned.PolicyRule("insert before", "", 0.2),))
    with pytest.raises(InputError, match="would never run"):
        thinned.apply(model, policy, batch(), forward=loss_of)
    assert dict(model.named_modules()).keys() == {"", "actor", "critic"}


class First(nn.Module):
    """Changes its input in place, in every pass."""

    def __init__(self):
        super().__init__()
        self.act, self.drop, self.last = nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(10, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.sum().item())
        return self.last(self.drop(self.act(x.sub_(1.0))))


class Graph:
    """An object with tensors in objects of its own, as graph libraries have."""

    def __init__(self, x):
        self._store = {"x": x, "edges": torch.arange(6).view(2, 3)}
        self.graph = self  # refers to itself

    @property
    def x(self):
        return self._store["x"]


class OnGraphs(First):
    def forward(self, graph):
        graph._store["hidden"] = super().forward(graph.x)
        return graph._store["hidden"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("make", [lambda x: x, Graph], ids=["tensor", "object"])
def test_each_pass_gets_the_inputs_as_they_were(name, make):
    model = First() if make(1) == 1 else OnGraphs()
    seen: list[float] = []
    model.last.register_forward_pre_hook(lambda *_: seen.extend(model.seen[-1:]))
    x = rows()
    given = make(x)
    CALLS[name](model, given)
    assert torch.equal(x, rows())
    assert len(seen) >= 1
    assert set(seen) == {rows().sum().item()} or name == "check"  # which has a copy in doubles
    assert max(seen) - min(seen) < 1e-4
    if isinstance(given, Graph):
        assert given._store.keys() == {"x", "edges"}


def test_copies():
    @dataclass
    class Record:
        x: torch.Tensor
        name: str

    class Slots:
        __slots__ = ("x",)

        def __init__(self, x):
            self.x = x

    x, layer = rows().requires_grad_(), nn.Linear(2, 2)
    pair = namedtuple("pair", "a b")(x * 2, 3)
    sparse = torch.eye(3).to_sparse()
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(2, 2)])
    value = [
        {"x": x, "again": x},
        pair,
        Record(x, "r"),
        Slots(x),
        UserDict(x=x),
        layer,
        sparse,
        packed,
    ]
    copy = copy_inputs(value)
    assert copy[0]["x"] is copy[0]["again"] is copy[2].x is copy[3].x is copy[4]["x"]
    assert copy[0]["x"] is not x
    assert copy[0]["x"].requires_grad
    assert torch.equal(copy[0]["x"], x)
    assert type(copy[1]) is type(pair)
    assert copy[1].a.is_leaf
    assert torch.equal(copy[1].a, pair.a)
    assert copy[5] is layer
    assert copy[6].is_sparse
    assert copy[6] is not sparse
    assert torch.equal(copy[6].to_dense(), torch.eye(3))
    assert copy[7].data.data_ptr() != packed.data.data_ptr()
    assert torch.equal(copy[7].data, packed.data)


def test_what_cannot_be_copied_is_passed_as_it_is():
    stream = iter([1])
    generator = (i for i in stream)
    x = rows()
    first, second = copy_inputs((x, generator))
    assert second is generator
    assert first is not x


def test_lightning_runs_its_step():
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.3))
            self.last = nn.Linear(16, 3)

        def training_step(self, batch, index):
            assert index == 0
            loss = F.cross_entropy(self.last(self.layers(batch["x"])), batch["y"])
            self.log("loss", loss)
            return loss

    net = Net()
    (site,) = thinned.find(net, batch())
    assert (site.name, site.rate, site.in_train, site.in_eval) == ("layers.2", 0.3, True, False)
    assert thinned.check(net, batch()).codes == set()
    assert "log" not in vars(net)
    edits = thinned.apply(net, "hidden", batch(), rate=0.5)
    assert net.layers[2].p == 0.5
    edits.undo()
    net.automatic_optimization = False
    with pytest.raises(InputError, match="optimizes by itself"):
        thinned.find(net, batch())


def test_models_of_hugging_face_take_a_mapping():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=50,
        intermediate_size=32,
    )
    model = transformers.BertForSequenceClassification(config)
    ids = torch.arange(16).view(2, 8)
    wanted = thinned.find(model, input_ids=ids)
    assert len(wanted) == 5
    for given in ({"input_ids": ids}, transformers.BatchEncoding({"input_ids": ids})):
        assert [s.name for s in thinned.find(model, given)] == [s.name for s in wanted]
    assert not ModelCall(model, ({"input_ids": ids},), {}).inputs
