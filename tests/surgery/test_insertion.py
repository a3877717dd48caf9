"""``insert``: dropout in any model by hooks; names are unchanged, ``find`` reaches the layers, and
undo is exact.
"""

from __future__ import annotations

import copy

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned.algebra import Linear

from .models import two_heads


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16),
        torch.nn.ReLU(),
        torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU()),
        torch.nn.Linear(16, 3),
    )


X = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))


def test_it_equals_a_sequential_with_the_layers_written_in():
    net = model()
    edits = thinned.insert(net, 0.5, after=torch.nn.ReLU)
    assert len(edits) == 2
    twin = model()
    written = torch.nn.Sequential(*twin[:2], nn.Dropout(0.5), *twin[2], nn.Dropout(0.5), twin[3])
    key, other = thinned.key(net, seed=3), thinned.key(written, seed=3)
    assert sorted(key.layers) == ["1.dropout_after", "2.1.dropout_after"]
    for layer, name in ((written[2], "1.dropout_after"), (written[5], "2.1.dropout_after")):
        layer.stream = dict(thinned.nn.module.dropout_modules(net))[name].stream
    key.at(1)
    other.at(1)
    torch.testing.assert_close(net(X), written(X))
    torch.testing.assert_close(net.eval()(X), model()(X))


def test_names_modes_and_undo():
    net = model()
    net[2].eval()
    state, names = net.state_dict(), [n for n, _ in net.named_modules()]
    before = net(X)
    edits = thinned.insert(net, presets.gaussian_dropout(0.3), before="3")
    assert net.state_dict().keys() == state.keys()
    assert [s.name for s in thinned.find(net, X)] == ["3.dropout_before"]
    assert not torch.equal(net(X), before)
    assert len(thinned.insert(net, 0.9, before="3")) == 0
    assert repr(edits) == "before 3: GaussianDropout(p=0.3, inplace=False)"
    twin = copy.deepcopy(net)
    assert not torch.equal(twin(X), twin(X))
    assert torch.equal(twin.eval()(X), before)
    edits.undo()
    assert torch.equal(net(X), before)
    assert [n for n, _ in net.named_modules()] == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_scheduled_and_chosen_by_depth():
    net = model()
    thinned.insert(net, Linear(0.0, 0.5, 10), after="1")
    run, x = torch.compile(net, backend="aot_eager", fullgraph=True), X
    key = thinned.key(net)
    for step in (1, 10):
        key.at(step)
        y = run(x)
        key.at(step)
        torch.testing.assert_close(y, net(x))
    chosen = thinned.insert(
        model(),
        lambda name, module: nn.Dropout(0.1) if "." in name else None,
        after=torch.nn.Linear,
    )
    assert [e.path for e in chosen.edits] == ["2.0"]


def test_after_a_sequential_is_after_its_last_module():
    net = model()
    (edit,) = thinned.insert(net, 0.5, after="2").edits
    assert edit.module is net[2][1]
    assert len(thinned.insert(net, 0.5, after="2.1")) == 0


def test_tuples_and_several_arguments():
    net = torch.nn.ModuleDict(
        {"rnn": torch.nn.GRU(6, 4), "attend": torch.nn.MultiheadAttention(4, 2)}
    )
    thinned.insert(net, 0.5, after=torch.nn.GRU)
    thinned.insert(net, 0.5, before=torch.nn.MultiheadAttention)
    y, h = net["rnn"](torch.randn(5, 3, 6))
    assert (y == 0).any()
    assert not (h == 0).any()
    q = torch.randn(5, 3, 4)
    assert not torch.equal(net["attend"](q, q, q)[0], net["attend"](q, q, q)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs after= or before=, one of them"),
        ({"after": "1", "before": "3"}, "needs after= or before=, one of them"),
        ({"after": torch.nn.Conv2d}, "names no module of this model"),
        ({"before": torch.nn.ModuleList}, "is a ModuleList that is not called"),
    ],
)
def test_refused_before_anything_is_changed(settings, message):
    net = torch.nn.Sequential(*model(), torch.nn.ModuleList([torch.nn.Linear(1, 1)]))
    count = len(list(net.modules()))
    with pytest.raises(InputError, match=message):
        thinned.insert(net, 0.5, **settings)
    assert len(list(net.modules())) == count
    with pytest.raises(InputError, match="between 0 and 1"):
        thinned.insert(net, 1.5, after="1")


def test_a_result_that_is_no_tensor_is_an_error_at_the_call():
    net = torch.nn.Sequential(two_heads())
    thinned.insert(net, 0.5, after="0")
    with pytest.raises(
        InputError, match="inserted at a TwoHeads and drops tensors, but got a dict"
    ):
        net(X)


def test_named_tuples_remain_named_tuples():
    from collections import namedtuple

    pair = namedtuple("pair", "out state")

    class Core(torch.nn.Module):
        def forward(self, x):
            return pair(x, 3)

    net = Core()
    thinned.insert(net, 1.0, after="")
    assert isinstance(net(X), pair)
    assert not net(X).out.any()
    assert net(X).state == 3
