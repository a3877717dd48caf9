"""Updates: PyTorch's optimizers in an ordinary loop, and the formulas of regularizers."""

from __future__ import annotations

import math

import pytest
import torch

from thinned.train import (
    Optimizer,
    Task,
    fit,
)
from thinned.train.data import epoch_order
from thinned.train.fit import batch_ranges, mean_losses
from thinned.train.networks import build
from thinned.train.population import Population
from thinned.train.updates import Updates, rate_factor

from .common import BASE, blobs


def torch_loop(split, recipe, make, penalty=lambda net: 0.0, after=lambda net: None):
    net = build(recipe, split)
    optimizer = make(net)
    for epoch in range(recipe.epochs):
        seen = split.train.take(epoch_order(len(split.train), recipe.shuffle, epoch))
        for start, stop in batch_ranges(len(split.train), recipe.batch_size):
            optimizer.zero_grad()
            out = net(seen.x[start:stop])
            loss = torch.nn.functional.cross_entropy(
                out, seen.y[start:stop], label_smoothing=recipe.label_smoothing
            )
            (loss + penalty(net)).backward()
            optimizer.step()
            after(net)
    return net


def same_weights(recipe, make, **more):
    split = blobs()
    expected = torch_loop(split, recipe, make, **more)
    got = fit(split, recipe).module()
    for (name, a), (_, b) in zip(expected.named_parameters(), got.named_parameters(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )


TORCH = {
    "sgd": (Optimizer("sgd", 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        Optimizer("sgd", 0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ),
    "nesterov": (
        Optimizer("sgd", 0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "adam": (Optimizer("adam", 0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "rmsprop": (
        Optimizer("rmsprop", 0.01, momentum=0.5),
        lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    ),
    "adadelta": (Optimizer("adadelta", 1.0), lambda p: torch.optim.Adadelta(p, 1.0)),
    "adagrad": (Optimizer("adagrad", 0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
}


@pytest.mark.parametrize("name", TORCH)
def test_optimizers_are_torchs(name):
    ours, theirs = TORCH[name]
    same_weights(BASE.at(optimizer=ours), lambda net: theirs(net.parameters()))


def test_adamw_is_torchs_on_weights():
    def make(net):
        weights = [p for p in net.parameters() if p.dim() > 1]
        others = [p for p in net.parameters() if p.dim() == 1]
        groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=0.01)

    same_weights(BASE.at(optimizer=Optimizer("adamw", 0.01, weight_decay=0.1)), make)
    assert (Optimizer("adamw").decoupled_decay, Optimizer("adam").decoupled_decay) == (0.01, 0.0)


def test_differential_learning_rates():
    def make(net):
        return torch.optim.SGD(
            [
                {"params": layer.parameters(), "lr": lr}
                for layer, lr in zip(
                    (net.linear1, net.linear2, net.linear3), (0.01, 0.1, 0.1), strict=True
                )
            ]
        )

    same_weights(BASE.at(optimizer=Optimizer("sgd", 0.1, layer_lr=(0.1, 1.0))), make)


def test_schedule():
    opt = Optimizer(warmup=0.1, decay="cosine")
    factors = [rate_factor(opt, s, 100) for s in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[-1] < 1e-3
    assert {rate_factor(Optimizer(), s, 100) for s in range(100)} == {1.0}
    history = fit(blobs(), BASE.at(optimizer=Optimizer(lr=0.01, decay="cosine"))).history["lr"]
    assert history[0] > history[1] > history[2]


def weights(net):
    return [p for p in net.parameters() if p.dim() > 1]


@pytest.mark.parametrize(("l1", "l2"), [(1e-2, 0.0), (0.0, 1e-2), (3e-3, 5e-3)])
def test_penalties(l1, l2):
    """l1 * sum|W| + l2 * sum W^2 by autograd; both: elastic net."""
    same_weights(
        BASE.at(l1=l1, l2=l2, optimizer=Optimizer("sgd", 0.1)),
        lambda net: torch.optim.SGD(net.parameters(), 0.1),
        penalty=lambda net: sum(l1 * w.abs().sum() + l2 * w.square().sum() for w in weights(net)),
    )


def test_max_norm():
    def project(net):
        with torch.no_grad():
            for layer in (net.linear1, net.linear2):
                layer.weight.copy_(torch.renorm(layer.weight, 2, 0, 0.4))

    same_weights(
        BASE.at(max_norm=0.4, optimizer=Optimizer("sgd", 0.3)),
        lambda net: torch.optim.SGD(net.parameters(), 0.3),
        after=project,
    )
    lengths = (
        fit(blobs(), BASE.at(max_norm=0.4, optimizer=Optimizer("sgd", 0.3)))
        .module()
        .linear1.weight.norm(dim=1)
    )
    assert lengths.max() <= 0.4 + 1e-6
    assert lengths.max() > 0.39


def test_clip():
    def make(net):
        optimizer = torch.optim.SGD(net.parameters(), 1.0)
        step = optimizer.step

        def clipped():
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.05)
            step()

        optimizer.step = clipped
        return optimizer

    same_weights(BASE.at(clip=0.05, optimizer=Optimizer("sgd", 1.0)), make)


class Gated(torch.nn.Module):
    """Two layers; ``gate`` is used in the first step only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.main, self.gate, self.steps = torch.nn.Linear(12, 3), torch.nn.Linear(12, 3), 0

    def forward(self, x):
        self.steps += self.training
        return self.main(x) + self.gate(x) if self.steps == 1 else self.main(x)


def test_a_parameter_without_a_gradient_is_unchanged():
    recipe = BASE.at(optimizer=Optimizer("adamw", 0.01, weight_decay=0.1))
    net, first = Gated(), Gated()
    fit(blobs(), recipe.at(epochs=1, batch_size=1000), first)
    fit(blobs(), recipe.at(epochs=2, batch_size=1000), net)
    assert torch.equal(net.gate.weight, first.gate.weight)
    assert not torch.equal(net.main.weight, first.main.weight)


def test_clip_and_smoothing_of_a_member_leave_the_others_alone():
    """Without a setting, gradients of infinite norm are not clipped to NaN, and infinite losses
    are not smoothed to NaN.
    """
    stack = Population([BASE, BASE.at(clip=1.0)], blobs())
    updates = Updates(stack, 1)
    for part in stack.parameters:
        part.tensor.grad = torch.full_like(part.tensor, 1e30)
    updates._clip(updates.clip)
    assert all(
        torch.equal(part.tensor.grad[0], torch.full_like(part.tensor[0], 1e30))
        for part in stack.parameters
    )
    out = torch.tensor([3e38, -3e38]).expand(2, 1, 2)
    loss = mean_losses(out, torch.tensor([0]), Task("classification", 2), torch.tensor([0.0, 0.1]))
    assert loss.tolist() == [0.0, math.inf]


@pytest.mark.parametrize("groups", [1, 2])
def test_max_norm_of_transposed_convolutions(groups):
    """The response of an output to unit inputs, one at a time, is its incoming weights; their
    length equals the limit.
    """
    torch.manual_seed(0)
    layer = torch.nn.ConvTranspose1d(4, 6, 3, groups=groups, bias=False)
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (4, 3)), layer, torch.nn.Flatten(), torch.nn.Linear(30, 3)
    )
    fit(blobs(), BASE.at(max_norm=0.2, optimizer=Optimizer("sgd", 0.1)), net)
    with torch.no_grad():
        lengths = layer(torch.eye(4)[:, :, None]).square().sum((0, 2)).sqrt()  # [out]
    torch.testing.assert_close(lengths, torch.full((6,), 0.2))
