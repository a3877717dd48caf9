"""The context managers over whole models: they reach everybody's dropout, or refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned
import thinned.nn as tnn

X = torch.ones(5, 7, 8)  # [examples, steps, features]


class Functional(nn.Module):
    """Functional dropout by position, by name and by default."""

    def forward(self, x):
        x = F.dropout(x, 0.5, self.training)
        return F.dropout1d(x, 0.5, training=self.training)


class Always(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class Product(nn.Module):
    """Attention as transformer libraries write it: the rate is 0 in evaluation."""

    def forward(self, x):
        rate = 0.5 if self.training else 0.0
        return F.scaled_dot_product_attention(x, x, x, dropout_p=rate)


class ByHand(nn.Module):
    def forward(self, x):
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x


class DropPath(nn.Module):
    """As timm writes it."""

    def __init__(self, drop_prob=0.5):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        return x * torch.empty(len(x), 1, 1).bernoulli_(1 - self.drop_prob)


class First(nn.Module):
    """The first result of a module that returns several."""

    def __init__(self, module, *, repeat=1):
        super().__init__()
        self.module, self.repeat = module, repeat

    def forward(self, x):
        return self.module(*(x,) * self.repeat)[0]


REACHED = {
    "module": lambda: nn.Dropout(0.5),
    "maps": lambda: nn.Dropout1d(0.5),
    "functional": Functional,
    "path": DropPath,
    "attention": lambda: First(
        nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), repeat=3
    ),
    "lstm": lambda: First(nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
    "ours": lambda: tnn.Dropout(0.5),
}


def draws(model):
    with torch.no_grad():
        return not torch.equal(model(X), model(X))


@pytest.mark.parametrize("name", REACHED)
def test_sampling_reaches_the_whole_model(name):
    """In evaluation the model is deterministic before and after, and draws in between; batch
    normalization remains in evaluation.
    """
    torch.manual_seed(0)
    model = nn.Sequential(REACHED[name](), nn.BatchNorm1d(7)).eval()
    before = {n: m.training for n, m in model.named_modules()}
    mean = model[1].running_mean.clone()
    assert not draws(model)
    with thinned.sampling(model):
        assert draws(model)
        assert not model[1].training
    assert not draws(model)
    assert torch.equal(mean, model[1].running_mean)
    assert before == {n: m.training for n, m in model.named_modules()}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", [*REACHED, "always", "product"])
def test_off_reaches_the_whole_model(name):
    torch.manual_seed(0)
    made = {"always": Always, "product": Product, **REACHED}[name]
    model = nn.Sequential(made()).train()
    assert draws(model)
    with thinned.off(model):
        assert not draws(model)
    assert draws(model)


def test_a_part_of_the_model_is_reached_too():
    model = nn.ModuleDict({"body": Functional(), "head": nn.Linear(8, 2)}).eval()
    with thinned.sampling(model):
        assert draws(model["body"])
    assert not draws(model["body"])


def test_an_exception_in_forward_leaves_nothing_behind():
    class Fails(nn.Module):
        def forward(self, x):
            F.dropout(x, 0.5, self.training)
            raise RuntimeError("as asked")

    model = Fails().eval()
    with thinned.sampling(model), pytest.raises(RuntimeError, match="as asked"):
        model(X)
    assert torch.equal(F.dropout(X, 0.5, False), X)


@pytest.mark.parametrize(
    ("build", "site"),
    [(Product, "F.scaled_dot_product_attention"), (ByHand, "torch.bernoulli")],
    ids=["product", "by hand"],
)
def test_sampling_refuses_what_it_cannot_reach(build, site):
    model = nn.Sequential(nn.Dropout(0.5), build()).eval()
    with pytest.raises(thinned.InputError, match=rf"1 \({build.__name__}\): {site} at .*:\d+"):
        thinned.sampling(model)
    with thinned.sampling(model, partial=True):
        assert draws(model)


@pytest.mark.parametrize("name", [n for n in REACHED if n != "ours"])
@pytest.mark.parametrize(
    "context",
    [thinned.frozen, thinned.recording, lambda model: thinned.replaying(model, thinned.Tape())],
    ids=["frozen", "recording", "replaying"],
)
def test_keys_are_refused_where_other_dropout_holds_none(context, name):
    model = nn.Sequential(tnn.Dropout(0.5), REACHED[name]())
    with pytest.raises(thinned.InputError, match=r"thinned.replace\(model\)"):
        context(model)
    with thinned.frozen(model, partial=True):
        model(X)


def test_rates_of_0_are_no_sites():
    model = nn.Sequential(nn.Dropout(0.0), nn.LSTM(8, 8, 2), tnn.Dropout(0.5))
    with thinned.recording(model):
        pass


def test_a_rate_of_0_of_another_thing_hides_no_site():
    """An attribute that happens to be called p says nothing of the functions that are called."""
    model = Functional().eval()
    model.p = model.dropout = 0.0
    with thinned.sampling(model):
        assert draws(model)
    with pytest.raises(thinned.InputError, match=r"the model \(Functional\)"):
        thinned.recording(model)
