"""Models with state of every kind are bit for bit as before after every function that runs them."""

import copy
import random
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import nn

import thinned
from thinned.surgery.preserve import restoring


class Stateful(nn.Module):
    """Changes state of every kind in its forward pass; ``fails``: raises after that."""

    def __init__(self, fails=None):
        super().__init__()
        self.fails = fails
        self.first = nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("codebook", torch.ones(4))
        self.scale = nn.Parameter(torch.ones(4))
        self.hidden = torch.zeros(4)
        self.count = 0
        self.nested = {"a": [torch.zeros(2), {"n": 1}], "b": deque([1, 2])}
        self.order = OrderedDict(x=1, y=2)
        self.names = {"a"}
        self.generator = torch.Generator().manual_seed(3)
        self.numpy = np.random.default_rng(3)
        self.legacy = np.random.RandomState(3)
        self.python = random.Random(3)

    def forward(self, x):
        x = self.first(x)
        self.codebook = self.codebook * 0.9
        self._parameters["scale"] = nn.Parameter(self.scale.detach() * 2)
        self.hidden = x.detach().mean(0)
        self.count += 1
        self.new = self.count
        self.nested["a"][0].add_(1)
        self.nested["a"][1]["n"] += 1
        self.nested["a"].append(3)
        self.nested["b"].append(3)
        self.order.move_to_end("x")
        self.names.add("b")
        self.linear.weight.requires_grad_(False)
        self.linear.register_forward_hook(lambda *_: None)
        torch.rand(1, generator=self.generator)
        self.numpy.random(), self.legacy.rand(), self.python.random()
        if self.fails is not None:
            raise self.fails
        return self.norm(self.drop(self.linear(x * self.scale)))


def content(value):
    """The content of a value as nested tuples of numbers, texts and bytes."""
    if isinstance(value, torch.Tensor):
        grad = value.grad if value.is_leaf else None
        return (value.detach().numpy().tobytes(), value.requires_grad, content(grad))
    if isinstance(value, nn.Module):
        return content(vars(value))
    if isinstance(value, dict):
        return tuple((k, content(v)) for k, v in value.items())
    if isinstance(value, (list, deque)):
        return tuple(map(content, value))
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    return frozenset(value) if isinstance(value, set) else repr(value)


def everything(model, x):
    states = (torch.get_rng_state().numpy().tobytes(), random.getstate())
    identities = [id(t) for t in (*model.parameters(), *model.buffers())]
    return content(model), content(x), states, repr(np.random.get_state(legacy=False)), identities


FUNCTIONS = {
    "find": thinned.find,
    "check": lambda model, x: thinned.check(model, x, samples=4),
    "expose": lambda model, x: thinned.expose(model, x).undo(),
    "strip": lambda model, x: thinned.strip(model, x).undo(),
    "apply": lambda model, x: thinned.apply(model, "hidden", x, rate=0.1).undo(),
}


@pytest.mark.parametrize("fails", [None, ValueError("fails"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_model_is_bit_for_bit_as_before(name, fails):
    model, x = Stateful(fails), torch.linspace(-1, 1, 32).reshape(8, 4)
    before = everything(model, x)
    if fails is None:
        FUNCTIONS[name](model, x)
    else:
        with pytest.raises(type(fails)):
            FUNCTIONS[name](model, x)
    assert everything(model, x) == before


def test_a_second_interrupt_comes_after_everything_is_restored():
    class Interrupting(dict):
        left = 1

        def update(self, *args):
            if self.left:
                self.left -= 1
                raise KeyboardInterrupt
            super().update(*args)

    model = nn.Linear(2, 2)
    model.cache = Interrupting(a=1)
    weight = copy.deepcopy(model.weight)

    def interrupted():
        with restoring(model, ()):
            model.cache["b"] = 2
            model.weight.data.zero_()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert model.cache.left == 0
    assert model.cache == {"a": 1}
    assert model.weight.equal(weight)
