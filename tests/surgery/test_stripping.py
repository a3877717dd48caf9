"""``strip`` with inputs: training becomes deterministic, whatever drew, and undo is exact."""

from __future__ import annotations

import collections
import copy
import dataclasses
import random
import re

import pytest
import torch
from torch.nn import functional as F

import thinned
from thinned import InputError

T = torch.nn
X = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(0))


class Config:
    """A configuration with rates, and other attributes with similar names."""

    def __init__(self):
        self.mask_time_prob, self.layerdrop, self.hidden_dropout, self.drop_note, self.hidden = (
            0.3,
            0.5,
            0.1,
            "a word",
            16,
        )


class Block(T.Module):
    def __init__(self):
        super().__init__()
        self.f, self.drop = T.Linear(16, 16), T.Dropout(0.1)
        self.attend = T.MultiheadAttention(16, 2, 0.2, batch_first=True)

    def forward(self, x):
        a = self.attend(x, x, x, need_weights=False)[0]
        q = x[:, None]
        q = F.scaled_dot_product_attention(q, q, q, dropout_p=0.3 if self.training else 0.0)[:, 0]
        return self.drop(F.dropout(self.f(x + a + q), 0.4, self.training))


class Speech(T.Module):
    """Every kind of draw that a rate governs: layers, functions, attention, whole layers by Python,
    masks in time.
    """

    def __init__(self):
        super().__init__()
        self.config, self.blocks, self.norm = (
            Config(),
            T.ModuleList(Block() for _ in range(2)),
            T.BatchNorm1d(5),
        )

    def forward(self, x, scale=1.0):
        if self.training and self.config.mask_time_prob > 0:
            x = x * (torch.rand(x.shape[:2]) > self.config.mask_time_prob)[..., None]
        for block in self.blocks:
            if self.training and random.random() < self.config.layerdrop:
                continue
            x = block(x)
        return {"hidden": self.norm(x) * scale}


def passes(net, *inputs):
    """The results of three training passes."""
    return [net.train()(*inputs) for _ in range(3)]


def test_every_draw_that_a_rate_governs_stops():
    net = Speech()
    net.blocks[0].eval()
    modes, state = [m.training for m in net.modules()], copy.deepcopy(net.state_dict())
    held, names = dict(vars(net.config)), [n for n, _ in net.named_modules()]
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    edits = thinned.strip(net, X)
    assert (torch.rand(1), random.random()) == expected
    assert all(torch.equal(state[n], v) for n, v in net.state_dict().items())
    assert net.state_dict().keys() == state.keys()
    assert edits.notes == ()
    assert vars(net.config) == held | {
        "mask_time_prob": 0.0,
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
    }
    assert [m.training for m in net.modules() if "Drop" not in type(m).__name__] == [
        on
        for m, on in zip(Speech().modules(), modes, strict=True)
        if "Drop" not in type(m).__name__
    ]
    a, b, c = (r["hidden"] for r in passes(net, X))
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(a, c)
    assert len(thinned.strip(net, X)) == 0
    edits.undo()
    assert vars(net.config) == held
    assert [n for n, _ in net.named_modules()] == names
    assert [m.p for m in net.modules() if isinstance(m, T.Dropout)] == [0.1, 0.1]
    assert [b.attend.dropout for b in net.blocks] == [0.2, 0.2]
    assert not any("forward" in m.__dict__ for m in net.modules())
    a, b, _ = (r["hidden"] for r in passes(net, X))
    assert not torch.allclose(a, b)


def test_stripped_training_is_the_pass_without_rates():
    """Without batch normalization, training then equals evaluation."""
    net = T.Sequential(Block(), Block())
    thinned.strip(net, X)
    torch.testing.assert_close(net.train()(X), net.eval()(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: T.LSTM(16, 8, 2, dropout=0.5),
        lambda: T.TransformerEncoder(
            T.TransformerEncoderLayer(16, 2, 32, 0.2, batch_first=True), 2
        ),
        lambda: thinned.nn.GaussianDropout(p=0.3),
        lambda: thinned.nn.DropConnect(T.Linear(16, 4), 0.3),
        lambda: T.Sequential(T.Dropout1d(0.5), T.AlphaDropout(0.2)),
    ],
)
def test_layers_of_all_kinds(make):
    net = make()
    edits = thinned.strip(net, X)
    results = [r[0] if isinstance(r, tuple) else r for r in passes(net, X)]
    torch.testing.assert_close(results[0], results[1])
    assert len(edits)
    assert not edits.notes
    assert len(thinned.strip(net, X)) == 0
    edits.undo()
    results = [r[0] if isinstance(r, tuple) else r for r in passes(net, X)]
    assert not torch.allclose(results[0], results[1])


class Leaky(T.Module):
    """Dropout that evaluation does not switch off."""

    def forward(self, x):
        return F.dropout(x, 0.5)


def test_only_a_part():
    net = T.Sequential(T.Dropout(0.5), Leaky())
    edits = thinned.strip(net, X, where="0")
    assert net[0].p == 0
    assert "functional_dropout_0" not in net[1]._modules
    assert "forward" not in net[1].__dict__
    assert len(edits) == 1
    edits.undo()
    thinned.strip(net, X, where="functional_dropout_0")
    assert net[0].p == 0.5
    assert net[1].functional_dropout_0.p == 0
    assert torch.equal(net[1].eval()(X), X)
    with pytest.raises(InputError, match="'7' names no layer with a rate"):
        thinned.strip(T.Sequential(T.Dropout(0.5), Leaky()), X, where="7")


class Noise(T.Module):
    def __init__(self, how, pack=lambda y: y):
        super().__init__()
        self.how, self.pack = how, pack

    def forward(self, x):
        return self.pack(self.how(x)) if self.training else x


@dataclasses.dataclass
class Record:
    hidden: torch.Tensor


class Output(collections.OrderedDict):
    """A dict class that the pytree of torch does not know."""


class Counting(T.Module):
    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, x):
        self.count += 1
        return x * self.count


def numpys(x):
    import numpy

    return x * float(numpy.random.rand())


@pytest.mark.parametrize(
    "pack", [lambda y: y, Record, lambda y: Output(hidden=y), lambda y: {"a": [None, y]}]
)
@pytest.mark.parametrize(
    ("how", "note"),
    [
        (
            lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
            r"torch.bernoulli at .*test_stripping.py:\d+ still draws",
        ),
        (
            lambda x: x + torch.randn_like(x),
            r"torch.randn_like at .*test_stripping.py:\d+ still draws",
        ),
        (lambda x: x * random.random(), r"random.random at .*test_stripping.py:\d+ still draws"),
        (numpys, "Noise at .* still draws"),
    ],
)
def test_draws_without_a_rate_are_noted(how, note, pack):
    (note_text,) = thinned.strip(Noise(how, pack), X).notes
    assert re.search(note, note_text), note_text


def test_differences_without_an_observed_draw_are_noted():
    (note_text,) = thinned.strip(Counting(), X).notes
    assert note_text == "training passes still differ, and no observed call explains it"


class Late(T.Module):
    """Raises at its second pass or later."""

    def __init__(self, at):
        super().__init__()
        # an iterator: counters in attributes are put back after each pass
        self.drop, self.passes = T.Dropout(0.3), iter(range(at))

    def forward(self, x):
        if next(self.passes, None) is None:
            raise RuntimeError("late")
        return self.drop(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("at", range(4))
def test_nothing_is_half_done(at):
    net = Late(at)
    with pytest.raises(RuntimeError, match="late"):
        thinned.strip(net, X)
    assert net.drop.p == 0.3
    assert "forward" not in net.__dict__
    assert list(net._modules) == ["drop"]
    assert net.training


def test_inputs_by_name_compiled_and_without_gradients():
    net = Speech()
    assert not thinned.strip(net, x=X, scale=2.0).notes
    net = T.Sequential(Leaky(), T.Dropout(0.2))
    compiled = torch.compile(net, backend="eager")
    thinned.strip(compiled, X)
    assert torch.equal(compiled(X), X)
    net = Speech()
    with torch.inference_mode():
        assert not thinned.strip(net, torch.randn(8, 5, 16)).notes
    net(X)["hidden"].sum().backward()


def test_errors():
    with pytest.raises(InputError, match="where='head'"):
        thinned.strip(Speech(), "head")
    with pytest.raises(InputError, match="where="):
        thinned.strip(Speech(), T.Dropout)
