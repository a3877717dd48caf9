"""Gradients are those of the masks of the loss, whatever a partitioner recomputes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch._functorch.config
from functorch.compile import aot_function, make_boxed_func
from torch._functorch import partitioners
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import thinned.functional
from thinned import InputError, nn, presets

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


def compiled_by_aot(layer):
    def loss(weight, x):
        return layer(torch.tanh(layer(x @ weight))).square().sum()

    def boxed(graph, inputs):
        return make_boxed_func(graph.forward)

    return aot_function(
        loss, boxed, boxed, partition_fn=partitioners.min_cut_rematerialization_partition
    )


def slopes(run, weight, *rest, seed=5):
    """(the slope of a loss along a direction by autograd, the same by finite differences)."""
    direction = torch.randn(weight.shape, dtype=torch.float64)

    def loss(size):
        torch.manual_seed(seed)
        moved = weight.detach().add(direction, alpha=size).requires_grad_()
        return run(moved, *rest), moved

    y, moved = loss(0.0)
    (grad,) = torch.autograd.grad(y, moved)
    sides = [loss(size)[0].item() for size in (1e-6, -1e-6)]
    return (grad * direction).sum().item(), (sides[0] - sides[1]) / 2e-6


@pytest.mark.parametrize("budget", [0.3, 0.8, 1])
@pytest.mark.parametrize("name", LAYERS)
def test_aot_function_without_dynamo(name, budget):
    weight = torch.randn(32, 32, dtype=torch.float64)
    x = torch.randn(16, 32, dtype=torch.float64)
    with torch._functorch.config.patch(activation_memory_budget=budget):
        slope, expected = slopes(compiled_by_aot(LAYERS[name]()), weight, x)
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_aot_function_that_saves_nothing_is_refused():
    weight, x = torch.randn(4, 4, requires_grad=True), torch.randn(3, 4)
    with torch._functorch.config.patch(activation_memory_budget=0):
        with pytest.raises(InputError, match=r"activation_memory_budget=0 draws again"):
            compiled_by_aot(nn.Dropout(0.5))(weight, x)
        with torch.no_grad():
            compiled_by_aot(nn.Dropout(0.5))(weight, x)


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_gradient_transforms(name):
    layer = LAYERS[name]()
    weight = torch.randn(32, 32, dtype=torch.float64)
    x, direction = torch.randn(2, 16, 32, dtype=torch.float64)[0], torch.randn(32, 32).double()

    def loss(weight, x):
        return layer(torch.tanh(layer(x @ weight))).square().sum()

    compiled = torch.compile(torch.func.grad_and_value(loss), backend=PARTITIONED, fullgraph=True)

    def run(size):
        torch.manual_seed(5)
        return compiled(weight + size * direction, x)

    grad, _ = run(0.0)
    slope = (run(1e-6)[1] - run(-1e-6)[1]).item() / 2e-6
    assert (grad * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-4)
    assert not torch.equal(compiled(weight, x)[0], compiled(weight, x)[0])


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_compiled_vmap_shares_or_separates_draws(randomness):
    layer = nn.Dropout(0.5)
    compiled = torch.compile(
        torch.func.vmap(layer, randomness=randomness), backend=PARTITIONED, fullgraph=True
    )
    first, second = compiled(torch.ones(2, 64, 32))
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(first, second) == (randomness == "same")
    assert not torch.equal(compiled(torch.ones(2, 64, 32))[0], first)


@pytest.mark.parametrize("budget", [0, 0.5, 1])
@pytest.mark.parametrize("randomness", ["same", "different"])
def test_memory_budgets_around_a_compiled_vmap(randomness, budget):
    layer, dtype = nn.Dropout(0.5), torch.float64
    weight, x = torch.randn(3, 32, 32, dtype=dtype), torch.randn(16, 32, dtype=dtype)

    def model(weight, x):
        return layer(torch.tanh(layer(torch.tanh(x @ weight)) @ weight))

    mapped = torch.func.vmap(model, in_dims=(0, None), randomness=randomness)
    compiled = torch.compile(
        lambda weight, x: mapped(weight, x).square().sum(), backend=PARTITIONED, fullgraph=True
    )
    with torch._functorch.config.patch(activation_memory_budget=budget):
        if randomness == "different" and budget < 1:  # torch draws again in the backward pass
            with pytest.raises(Exception, match="repeated in the backward pass"):
                slopes(compiled, weight, x)
            return
        slope, expected = slopes(compiled, weight, x)
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # Dynamo's own, at breaks
@pytest.mark.parametrize("budget", [0, 0.5, 1])
def test_generators_in_compiled_functions(budget):
    torch._dynamo.reset()
    generator, spec = torch.Generator(), presets.dropout(0.5)
    weight = torch.randn(32, 32, dtype=torch.float64)
    x = torch.randn(16, 32, dtype=torch.float64)

    def loss(weight, x):
        y = thinned.functional.drop(torch.tanh(x @ weight), spec, generator=generator)
        return (y @ weight).square().sum()

    def run(weight, x):
        generator.manual_seed(7)
        return compiled(weight, x)

    compiled = torch.compile(loss, backend=PARTITIONED)
    with torch._functorch.config.patch(activation_memory_budget=budget):
        slope, expected = slopes(run, weight, x)
    assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)
    generator.manual_seed(7)
    torch.testing.assert_close(loss(weight, x), run(weight, x))
    assert not torch.equal(compiled(weight, x), run(weight, x))
