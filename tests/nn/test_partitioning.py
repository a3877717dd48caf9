"""Gradients are those of the masks of the loss, whatever a partitioner recomputes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch._functorch.config
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import thinned.functional
from thinned import nn

LAYERS = {
    "bernoulli": lambda: nn.Dropout(0.5),
    "gaussian": lambda: nn.GaussianDropout(0.5),
    "uniform": lambda: nn.UniformDropout(0.5),
    "classic": lambda: nn.Dropout(0.5, scale="classic"),
}
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
PARTITIONED = "aot_eager_decomp_partition"


class Functional(torch.nn.Module):
    def forward(self, x):
        return thinned.functional.dropout(x, 0.5)


def network(layer):
    torch.manual_seed(0)
    widths = [torch.nn.Linear(32, 32) for _ in range(3)]
    blocks = [(w, layer(), torch.nn.Tanh()) for w in widths]
    return torch.nn.Sequential(*[module for block in blocks for module in block]).double()


def check_gradients(net, run):
    """Compare autograd with finite differences along a random direction of the first weight."""
    x = torch.randn(16, 32, dtype=torch.float64)
    weight, direction = net[0].weight, torch.randn(32, 32, dtype=torch.float64)

    def loss():
        torch.manual_seed(5)
        return run(x).square().sum()

    loss().backward()
    sides = []
    for size in (1e-5, -2e-5):
        with torch.no_grad():
            weight.add_(direction, alpha=size)
        sides.append(loss().item())
    slope = (sides[0] - sides[1]) / 2e-5
    assert (weight.grad * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("budget", [0, 0.3, 0.5, 0.8, 1])
@pytest.mark.parametrize("name", LAYERS)
def test_memory_budgets(name, budget):
    torch._dynamo.reset()
    net = network(LAYERS[name])
    with torch._functorch.config.patch(activation_memory_budget=budget):
        check_gradients(net, torch.compile(net, backend=PARTITIONED, fullgraph=True))


@pytest.mark.parametrize("budget", [0.5, 0.8])
def test_memory_budgets_under_inductor(budget):
    torch._dynamo.reset()
    net = network(LAYERS["bernoulli"])
    with torch._functorch.config.patch(activation_memory_budget=budget):
        check_gradients(net, torch.compile(net, fullgraph=True))


def test_compiled_layers_draw_as_eager_ones():
    torch._dynamo.reset()
    net = network(LAYERS["bernoulli"])
    compiled, x = (
        torch.compile(net, backend=PARTITIONED, fullgraph=True),
        torch.ones(4, 32).double(),
    )
    torch.manual_seed(1)
    expected = [net(x), net(x)]
    torch.manual_seed(1)
    torch.testing.assert_close([compiled(x), compiled(x)], expected)
    assert not torch.equal(*expected)


@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("layer", [*LAYERS.values(), Functional])
@pytest.mark.parametrize("saved", [["map", "apply"], []])
def test_selective_checkpointing(layer, preserve, saved):
    net = network(layer)
    operators = [getattr(torch.ops.thinned, name).default for name in saved]
    context = partial(create_selective_checkpoint_contexts, [*operators, torch.ops.aten.mm.default])
    how = {"use_reentrant": False, "preserve_rng_state": preserve, "context_fn": context}
    check_gradients(net, lambda x: checkpoint(net, x, **how))
