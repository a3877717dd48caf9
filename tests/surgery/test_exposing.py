"""``expose`` and ``strip``: functional dropout becomes layers, and training without rates is
deterministic.
"""

from __future__ import annotations

import copy
import inspect
import random

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import thinned
from thinned import InputError

X = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0))


def attend(module, q, rate):
    weights = F.dropout(q.softmax(-1), p=rate, training=module.training)
    return weights * q


class Block(torch.nn.Module):
    """Functional dropout of every kind, and one dropout layer."""

    def __init__(self):
        super().__init__()
        self.linear, self.rate, self.layer = torch.nn.Linear(8, 8), 0.25, torch.nn.Dropout(0.15)

    def forward(self, x, *, scale=1.0):
        h = F.dropout(self.linear(x), self.rate, self.training)
        h = h + F.dropout(x, p=0.4, training=self.training)
        h = attend(self, self.layer(h), 0.3)
        q = h[:, None]
        return (
            scale
            * F.scaled_dot_product_attention(q, q, q, dropout_p=0.2 if self.training else 0.0)[:, 0]
        )


class Leaky(torch.nn.Module):
    """Dropout that evaluation does not switch off."""

    def forward(self, x):
        q = F.dropout(x, 0.5)[:, None]
        return F.scaled_dot_product_attention(q, q, q, dropout_p=0.1)[:, 0]


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(), Block())


def test_calls_become_layers_and_undo_is_exact():
    net = model()
    net[1].register_forward_hook(lambda *_: None)
    state, names = net.state_dict(), [n for n, _ in net.named_modules()]
    hooks = [list(m._forward_hooks) for m in net.modules()]
    torch.manual_seed(1)
    before = net(X)
    edits = thinned.expose(net, X)
    assert len(edits) == 8
    assert [getattr(net[0], f"functional_dropout_{i}").p for i in range(4)] == [0.25, 0.4, 0.3, 0.2]
    assert net.state_dict().keys() == state.keys()
    assert torch.equal(net.eval()(X), model().eval()(X))
    assert not any("F." in s.function for s in thinned.find(net, X) if "layer" not in s.name)
    assert len(thinned.expose(net, X)) == 0
    assert list(inspect.signature(net[0].forward).parameters) == ["x", "scale"]
    edits.undo()
    net.train()
    torch.manual_seed(1)
    assert torch.equal(net(X), before)
    assert [n for n, _ in net.named_modules()] == names
    assert not any("forward" in m.__dict__ for m in net.modules())
    assert [list(m._forward_hooks) for m in net.modules()] == hooks


def test_the_noise_distribution_is_that_of_the_call():
    """Rates of zeros within 4.9 standard errors of the rate of the call (alpha 1e-6 each)."""
    net = Leaky()
    thinned.expose(net, X)
    sites = {s.name: s for s in thinned.find(net, torch.rand(400, 5, 8) + 1)}
    assert abs(sites["functional_dropout_0"].measured - 0.5) < 4.9 * (0.25 / 16000) ** 0.5
    exact, q = Leaky(), torch.rand(2000, 5, 8)
    thinned.expose(exact, X)
    exact.functional_dropout_0.p = 0.0
    mean = exact(q.repeat(20, 1, 1)).view(20, *q.shape).mean(0)
    wanted = F.scaled_dot_product_attention(q, q, q)
    error = (mean - wanted).mean().item()
    spread = (exact(q) - wanted).std().item() / (20 * 2000) ** 0.5
    assert abs(error) < 4.9 * spread


def test_rates_keys_and_modes_reach_it():
    net = Block()
    thinned.replace(net)
    thinned.expose(net, X)
    thinned.set_rate(net, 0.0, "functional_dropout_1")
    assert net.functional_dropout_1.p == 0
    net.rate = 0.6  # what the call says holds until somebody sets the layer
    net(X)
    assert net.functional_dropout_0.p == 0.6
    thinned.set_rate(net, 0.1, "functional_dropout_0")
    net.rate = 0.7
    net(X)
    assert net.functional_dropout_0.p == 0.1
    key = thinned.key(net, seed=1)
    assert "functional_dropout_3" in key.layers
    key.at(1)
    first = net(X)
    key.at(1)
    assert torch.equal(net(X), first)
    key.at(2, samples=torch.arange(16))
    whole = net(X)
    key.at(2, samples=torch.arange(8, 16))
    torch.testing.assert_close(net(X[8:]), whole[8:])
    net.eval()
    key.remove()
    with thinned.sampling(net):
        assert not torch.equal(net(X), net(X))
    assert torch.equal(net(X), net(X))


def test_evaluation_is_repaired_only_if_asked():
    kept, fixed = Leaky().eval(), Leaky().eval()
    edits = thinned.expose(kept, X)
    assert sum("in evaluation too; fix=True" in note for note in edits.notes) == 2
    assert not torch.equal(kept(X), kept(X))
    with thinned.off(kept):
        assert torch.equal(kept(X), kept(X))
    edits = thinned.expose(fixed, X, fix=True)
    assert edits.notes == ()
    torch.testing.assert_close(fixed(X), F.scaled_dot_product_attention(X, X, X))
    fixed.train()
    assert not torch.equal(fixed(X), fixed(X))


def test_copies_gradients_and_checkpointed_modules():
    net = model()
    thinned.expose(net, X)
    twin = copy.deepcopy(net)
    twin[0].functional_dropout_0.p = 1.0
    assert net[0].functional_dropout_0.p == 0.25
    assert twin[0].forward.module is twin[0]
    net[0].layer.p = net[1].layer.p = 0.0
    key = thinned.key(torch.nn.ModuleList([net]))
    grads = []
    for run in (lambda x: net(x), lambda x: checkpoint(net, x, use_reentrant=False)):
        key.at(3)
        x = X.clone().requires_grad_()
        run(x).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_heads_of_torchs_function_follow_rate_and_mode():
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.of = torch.nn.MultiheadAttention(8, 2)

        def forward(self, x):
            a = self.of
            return F.multi_head_attention_forward(
                x,
                x,
                x,
                8,
                2,
                a.in_proj_weight,
                a.in_proj_bias,
                None,
                None,
                False,
                0.5,
                a.out_proj.weight,
                a.out_proj.bias,
                training=self.training,
            )[0]

    net = Attention()
    thinned.expose(net, X)
    assert net.functional_dropout_0.p == 0.5
    assert not torch.equal(net(X), net(X))
    net.functional_dropout_0.p = 0.0
    assert torch.equal(net(X), net(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute:UserWarning")
def test_a_compiled_model_forgets_its_old_graph():
    net = model()
    run = torch.compile(net, backend="eager")
    run(X)
    edits = thinned.expose(run, X)
    assert sorted(e.path for e in edits.edits)[0] == "0"
    for block in net:
        block.layer.p = 0.0
    key = thinned.key(net)
    key.at(1)
    first = run(X)
    key.at(1)
    assert torch.equal(run(X), first)
    key.remove()
    thinned.set_rate(net, 0.0)
    assert torch.equal(run(X), run(X))
    edits.undo()
    assert not torch.equal(run(X), run(X))


def test_calls_out_of_reach_are_noted():
    class Mask(torch.nn.Module):
        def forward(self, x):
            return x * torch.bernoulli(torch.full_like(x, 0.5))

    class Again(torch.nn.Module):
        def forward(self, x):
            return checkpoint(lambda y: F.dropout(y, 0.5, self.training), x, use_reentrant=False)

    class Chain(torch.nn.Sequential):
        def forward(self, x):
            return F.dropout(super().forward(x), 0.5, self.training)

    for net, note in (
        (Mask(), "draws a mask by hand"),
        (Again(), "run again by a checkpoint"),
        (Chain(), "code of a Chain"),
    ):
        edits = thinned.expose(net, X)
        assert len(edits) == 0
        assert len(edits.notes) == 1
        assert note in edits.notes[0]
        assert f"{__file__}:" in edits.notes[0]
    with pytest.raises(InputError, match="pass its inputs"):
        thinned.expose(Mask())


class Stack(torch.nn.Module):
    """Layers left out by Python's generator, masks by torch's, rates in a configuration."""

    class Config:
        def __init__(self):
            self.layerdrop, self.hidden_dropout = 0.5, 0.3

    def __init__(self):
        super().__init__()
        self.config, self.layers, self.jitter_noise = (
            self.Config(),
            torch.nn.ModuleList([Block(), Block(), Block()]),
            0.1,
        )

    def forward(self, x):
        for layer in self.layers:
            if not self.training or random.random() >= self.config.layerdrop:
                x = layer(x)
        if self.training and self.jitter_noise:
            x = x * (1 + self.jitter_noise * torch.randn_like(x))
        return x * (torch.rand_like(x) >= self.config.hidden_dropout) if self.training else x


def test_strip_makes_any_training_deterministic():
    net = Stack()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p))
    state = random.getstate()
    edits = thinned.strip(net, X)
    assert random.getstate() == state
    assert edits.notes == ()
    results = []
    for seed in range(5):
        torch.manual_seed(seed)
        random.seed(seed)
        results.append(net(X))
    assert all(torch.equal(r, results[0]) for r in results)
    assert torch.equal(results[0], net.eval()(X))
    assert len(thinned.strip(net, X)) == 0
    edits.undo()
    net.train()
    assert (net.config.layerdrop, net.config.hidden_dropout, net.jitter_noise) == (0.5, 0.3, 0.1)
    assert not any("forward" in m.__dict__ for m in net.modules())
    assert not torch.equal(net(X), net(X))


def test_strip_of_a_part_and_what_it_cannot_silence():
    net = model()
    edits = thinned.strip(net, X, where="functional_dropout_1")
    assert {s.rate for s in thinned.find(net, X)} == {0.25, 0.15, 0.3, 0.2}
    edits.undo()
    assert {s.rate for s in thinned.find(net, X)} == {0.25, 0.4, 0.15, 0.3, 0.2}

    class Noise(torch.nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    (note,) = thinned.strip(Noise(), X).notes
    assert "torch.randn_like at" in note
    assert note.endswith("still draws")
    with pytest.raises(InputError, match="where='head'"):
        thinned.strip(net, "head")
