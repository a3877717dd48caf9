"""What the training loop trains: a group of networks that see the same batches.

A *member* is one network of a group, and ``m`` is the number of members. A
:class:`SingleNetwork` has one member; a :class:`~thinned.train.population.Population` has many,
with their weights stacked. The loop treats both alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..nn import ModelKey
from ..nn.keys import key
from ..nn.module import dropout_modules
from .data import Split
from .networks import WEIGHT_LAYERS, build
from .recipe import Recipe


@dataclass(frozen=True)
class TrainableParameter:
    """A parameter with what the updates need to know about it.

    Args:
        tensor: The parameter; of a population, of all members: [m, ...].
        layer: Its weight layer, counted from 0 at the input.
        is_weight: Whether it is a weight matrix or kernel, and not a bias or a parameter of a
            normalization.
        unit_axes: The axes over which the incoming weights of a unit run.
        grid: The shape that has these axes, where the parameter's own shape does not. None: its
            own shape.
    """

    tensor: Tensor
    layer: int
    is_weight: bool
    unit_axes: tuple[int, ...] = ()
    grid: tuple[int, ...] | None = None


class NetworkGroup(Protocol):
    """Networks that are trained together, on the same batches: ``m`` members."""

    recipes: list[Recipe]
    parameters: list[TrainableParameter]
    layers: int

    def forward(self, x: Tensor, ids: Tensor, step: int) -> Tensor:
        """Training outputs [m, b, outputs] for inputs [b, features] or [m, b, features]."""
        ...

    def evaluate(self, x: Tensor) -> Tensor:
        """Evaluation outputs [m, n, outputs] for inputs [n, features]."""
        ...

    def dead_units(self, x: Tensor) -> list[float]:
        """For each member, the fraction of hidden units that are 0 on every row of ``x``.

        NaN without ReLU.
        """
        ...

    def per_member(self, values: Tensor) -> Tensor:
        """One number per member, shaped to broadcast over a slice of a parameter."""
        ...

    def member_slice(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """The slice of a parameter or gradient for members ``start`` to ``stop``, as a view."""
        ...

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        """A gradient with the other axes flattened: [m, k]."""
        ...

    def save(self, member: int) -> list[Tensor]:
        """A copy of the weights and statistics of one member."""
        ...

    def restore(self, member: int, saved: list[Tensor]) -> None:
        """Write back what :meth:`save` returned."""
        ...

    def module(self, member: int) -> nn.Module:
        """One member as an ``nn.Module``, in evaluation mode."""
        ...

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        """Announce the sample ids and steps of the coming batches, in order."""
        ...

    def finish(self) -> None:
        """Release what only the masks of training needed."""
        ...


class SingleNetwork:
    """A group of one: any ``nn.Module``, its dropout modules keyed by the seed of the recipe."""

    def __init__(self, recipe: Recipe, split: Split, net: nn.Module | None = None) -> None:
        self.recipes = [recipe]
        self.net = build(recipe, split) if net is None else net
        self.key: ModelKey | None = (
            key(self.net, recipe.seed) if any(True for _ in dropout_modules(self.net)) else None
        )
        self.parameters = []
        layers: dict[int, int] = {}  # id of a parameter -> its weight layer
        # id of a transposed weight -> [groups, in / groups, out / groups, ...]
        transposed: dict[int, tuple[int, ...]] = {}
        weighted = [m for m in self.net.modules() if isinstance(m, WEIGHT_LAYERS)]
        for i, module in enumerate(weighted):
            layers.update({id(p): i for p in module.parameters(recurse=False)})
            if isinstance(module, nn.modules.conv._ConvTransposeNd):
                transposed[id(module.weight)] = (module.groups, -1, *module.weight.shape[1:])
        self.layers = max(1, len(weighted))
        last = 0
        for p in self.net.parameters():
            last = layers.get(id(p), last)
            matrix = id(p) in layers and p.dim() > 1
            if p.requires_grad:
                grid = transposed.get(id(p))
                unit_axes: tuple[int, ...] = ()
                if grid:
                    unit_axes = (1, *range(3, len(grid)))
                elif matrix:
                    unit_axes = tuple(range(1, p.dim()))
                self.parameters.append(TrainableParameter(p, last, matrix, unit_axes, grid))

    def forward(self, x: Tensor, ids: Tensor, step: int) -> Tensor:
        self.net.train()
        if self.key:
            self.key.at(step, ids)
        return self.net(x[0] if x.dim() == 3 else x)[None]

    def evaluate(self, x: Tensor) -> Tensor:
        self.net.eval()
        return self.net(x)[None]

    def dead_units(self, x: Tensor) -> list[float]:
        alive: list[Tensor] = []

        def record_alive(module: nn.Module, _: object, out: Tensor) -> None:
            alive.append((out > 0).transpose(0, 1).flatten(1).any(1))

        relus = [
            m
            for m in self.net.modules()
            if isinstance(m, nn.ReLU) or isinstance(getattr(m, "activation", None), nn.ReLU)
        ]
        with _hooked(relus, record_alive):
            self.evaluate(x)
        return [1.0 - torch.cat(alive).float().mean().item() if alive else float("nan")]

    def per_member(self, values: Tensor) -> Tensor:
        return values[0]

    def member_slice(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        return tensor

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        return gradient.reshape(1, -1)

    def save(self, member: int) -> list[Tensor]:
        return [t.detach().clone() for t in self.net.state_dict().values()]

    def restore(self, member: int, saved: list[Tensor]) -> None:
        for current, value in zip(self.net.state_dict().values(), saved, strict=True):
            current.copy_(value)

    def module(self, member: int) -> nn.Module:
        return self.net.eval()

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        """Nothing to prepare: the dropout modules draw their masks in each forward pass."""

    def finish(self) -> None:
        if self.key:  # without a key, the user of the trained network decides its masks
            self.key.remove()


def equal_runs(values: Sequence[Any]) -> Iterator[tuple[int, int, Any]]:
    """The runs of adjacent equal values, as (start, stop, value)."""
    for value, group in groupby(enumerate(values), key=lambda pair: pair[1]):
        indices = [i for i, _ in group]
        yield indices[0], indices[-1] + 1, value


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: object) -> Iterator[None]:
    handles = [m.register_forward_hook(hook) for m in modules]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
