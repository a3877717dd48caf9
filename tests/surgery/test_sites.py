"""``find``: what a model draws is seen by what it does, and the model is left as it was."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import thinned
from thinned import InputError, nn


class DropPath(torch.nn.Module):
    """Drop path as vision libraries write it: a Bernoulli draw by hand."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if not self.training:
            return x
        return x * x.new_empty(len(x), 1, 1).bernoulli_(1 - self.drop_prob) / (1 - self.drop_prob)


class Everything(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 16), torch.nn.Linear(16, 2)
        self.theirs, self.ours = torch.nn.Dropout(0.3), nn.Dropout(0.2)
        self.norm = torch.nn.BatchNorm1d(16)
        self.recurrent = torch.nn.GRU(16, 16, 2, dropout=0.4, batch_first=True)
        self.attend = torch.nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True)
        self.path = DropPath(0.25)

    def forward(self, x):
        h = self.ours(self.theirs(self.first(x)))
        h = F.dropout(h, 0.1)  # no training=
        h = h + self.path(self.recurrent(h)[0])
        h = self.attend(h, h, h, need_weights=False)[0]
        h = F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None], dropout_p=0.15)[
            :, 0
        ]  # nor here
        if random.random() < 2:
            h = h + 0.01 * torch.rand_like(h)
        return self.last(self.norm(h.mean(1)))


X = torch.randn(64, 5, 8, generator=torch.Generator().manual_seed(0))


def test_everything_that_draws_is_found():
    sites = thinned.find(Everything(), X)
    seen = [(s.name, s.kind, s.function, s.rate, s.in_train, s.in_eval) for s in sites]
    assert seen == [
        ("theirs", "dropout", "F.dropout", 0.3, True, False),
        ("ours", "dropout", "Dropout", 0.2, True, False),
        ("", "dropout", "F.dropout", 0.1, True, True),
        ("recurrent", "recurrent", "torch.gru", 0.4, True, False),
        ("path", "mask", "torch.Tensor.bernoulli_", 0.25, True, False),
        ("attend", "attention", "F.multi_head_attention_forward", 0.1, True, False),
        ("", "attention", "F.scaled_dot_product_attention", 0.15, True, True),
        ("", "python", "random.random", None, True, True),
        ("", "noise", "torch.rand_like", None, True, True),
    ]
    for site in sites:
        if site.measured is not None:
            n = 64 if site.name == "path" else 64 * 5 * 16
            assert abs(site.measured - site.rate) < 4.9 * (0.25 / n) ** 0.5  # alpha 1e-6
        assert site.where.rpartition(":")[0] == __file__
    behind = [s.flops_behind for s in sites]
    assert behind == sorted(behind, reverse=True)
    assert behind[0] > 0.9
    assert sites[2].shape == (64, 5, 16)
    text = str(sites)
    assert text.startswith("name         kind       function")
    assert len(text.splitlines()) == 10


def test_the_model_is_left_as_it_was():
    model = Everything()
    model.theirs.eval()
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(2), random.random()
    torch.manual_seed(3)
    random.seed(3)
    thinned.find(model, X)
    assert torch.equal(torch.rand(2), expected[0])
    assert random.random() == expected[1]
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert random.random.__name__ == "random"


def test_a_model_that_raises_is_left_as_it_was():
    model = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(3, 2)).eval()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        thinned.find(model, torch.ones(2, 4))
    assert not model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Counter(TorchDispatchMode):
    """An independent count: operators that draw, as the dispatcher sees them."""

    NAMES = ("bernoulli", "rand", "native_dropout", "normal_", "uniform_")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += any(n in func.__name__ for n in self.NAMES)
        return func(*args, **(kwargs or {}))


LAYER = {"d_model": 16, "nhead": 2, "dim_feedforward": 32, "batch_first": True}
MODELS = {
    "transformer": lambda: torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(**LAYER), 2, enable_nested_tensor=False
    ),
    "decoder": lambda: torch.nn.Transformer(16, 2, 1, 1, 32, batch_first=True),
    "mlp": lambda: torch.nn.Sequential(
        torch.nn.Linear(16, 8), torch.nn.Dropout(0.5), torch.nn.AlphaDropout(0.1)
    ),
    "ours": lambda: torch.nn.Sequential(
        nn.Dropout(0.5), nn.DropConnect(torch.nn.Linear(16, 8)), nn.GaussianDropout(0.2)
    ),
    "none": lambda: torch.nn.Sequential(
        torch.nn.Linear(16, 8), torch.nn.Dropout(0.0), torch.nn.Dropout1d(0.0)
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_calls_agree_with_an_independent_count(name):
    model, x = MODELS[name](), torch.randn(4, 6, 16)
    inputs = (x, x) if name == "decoder" else (x,)
    sites = thinned.find(model, *inputs)
    with Counter() as drawn:
        model(*inputs)
    assert sum(s.calls for s in sites) == drawn.count
    with Counter() as quiet:
        model.eval()(*inputs)
    assert quiet.count == 0
    assert not any(s.in_eval for s in sites)


def test_a_generator_that_moves_without_an_observed_draw_is_found():
    class Hidden(torch.nn.Module):
        def forward(self, x):
            with torch._C.DisableTorchFunction():
                return x * torch.rand_like(x)

    (site,) = thinned.find(torch.nn.Sequential(Hidden()), torch.ones(3))
    assert (site.name, site.kind, site.function) == ("0", "unseen", "Hidden")


def test_without_inputs_layers_are_read():
    sites = thinned.find(Everything())
    assert [(s.name, s.rate) for s in sites if not s.where] == [
        ("theirs", 0.3),
        ("ours", 0.2),
        ("recurrent", 0.4),
        ("attend", 0.1),
        ("path", 0.25),
    ]
    assert str(thinned.find(torch.nn.Linear(2, 2))) == "no randomness found"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_models_are_read_through_and_scripted_ones_refused():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    assert [s.name for s in thinned.find(torch.compile(net), torch.ones(2, 3))] == ["1"]
    scripted = torch.jit.script(net)
    with pytest.raises(InputError, match="a scripted model cannot be observed"):
        thinned.find(scripted, torch.ones(2, 3))


def test_layers_that_a_pass_leaves_out_are_found():
    class Skips(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(
                torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2)) for _ in range(4)
            )
            self.layerdrop = 0.999

        def forward(self, x):
            for layer in self.layers:
                if not (self.training and torch.rand(()) < self.layerdrop):
                    x = layer(x)
            return x

    torch.manual_seed(0)
    model = Skips()
    sites = thinned.find(model, torch.randn(3, 4))
    found = {site.name: site for site in sites}
    assert set(found) == {"", *(f"layers.{i}.1" for i in range(4))}
    assert found[""].calls == 4
    assert [found[f"layers.{i}.1"].calls for i in range(4)] == [0] * 4
    assert all(site.in_train and not site.in_eval for site in sites)
    assert all(0 <= site.flops_behind <= 1 for site in sites)
    assert model.layerdrop == 0.999


def helper(x, p, training):
    return F.dropout(x, p, training) if p else x


class Source(torch.nn.Module):
    """Draws in many spellings; the line numbers are those of the test below."""

    def __init__(self):
        super().__init__()
        self.p, self.always, self.drop = 0.3, True, torch.nn.Dropout(0.1)

    def forward(self, x):
        x = F.dropout(x)
        x = F.dropout(x, self.p, self.training)
        x = F.dropout(x, p=0.2, training=not self.training)
        x = F.dropout(x, 0.4, training=self.always)
        x = F.dropout(x, 0.0)
        x = self.drop(x) * torch.bernoulli(torch.full_like(x, 0.5)) + torch.randn_like(x)
        if self.training and random.random() < 0.5:
            return x
        x = torch.nn.functional.scaled_dot_product_attention(
            x, x, x, dropout_p=self.p if self.training else 0.0
        )
        return self.more(helper(x, 0.7, self.training))

    def more(self, x):
        return x * x.new_empty(3).bernoulli_(0.5) + F.scaled_dot_product_attention(
            x, x, x, None, 0.6
        )

    def unused(self, x):
        return F.dropout(x, 0.9)


def test_without_inputs_source_is_read():
    line = Source.forward.__code__.co_firstlineno
    found = [
        (s.kind, s.function, int(s.where.rpartition(":")[2]) - line, s.rate, s.in_train, s.in_eval)
        for s in thinned.find(Source())
        if s.where
    ]
    after = Source.more.__code__.co_firstlineno - line + 1
    before = helper.__code__.co_firstlineno - line + 1
    expected = [
        ("dropout", "F.dropout", 1, 0.5, True, True),
        ("dropout", "F.dropout", 2, 0.3, True, False),
        ("dropout", "F.dropout", 3, 0.2, False, True),
        ("dropout", "F.dropout", 4, 0.4, True, True),
        ("dropout", "F.dropout", 5, 0.0, False, False),
        ("mask", "torch.bernoulli", 6, None, True, False),
        ("noise", "torch.randn_like", 6, None, True, False),
        ("python", "random.random", 7, None, True, False),
        ("attention", "F.scaled_dot_product_attention", 9, 0.3, True, False),
        ("mask", "torch.Tensor.bernoulli_", after, None, True, False),
        ("attention", "F.scaled_dot_product_attention", after, 0.6, True, True),
        ("dropout", "F.dropout", before, None, True, False),
    ]
    assert len(found) == len(expected)
    assert set(found) == set(expected)
    assert [s.name for s in thinned.find(Source()) if not s.where] == ["drop"]
    assert {s.where for s in thinned.find(torch.nn.Sequential(Source()))} == {
        s.where for s in thinned.find(Source())
    }
