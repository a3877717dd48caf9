"""What the training loop drives: one network, or many at once. :class:`Solo` is one;
``stack.Stack`` is many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..nn import ModelKey, key
from ..nn.module import dropout_modules
from .data import Split
from .networks import WEIGHTED, build
from .recipe import Recipe


@dataclass(frozen=True)
class Part:
    """A parameter. ``layer``: its weight layer, counted from 0 at the input. ``weight``: a matrix,
    not a bias or a norm.

    ``units``: the axes that a unit's incoming weights run over, in ``grid``, the shape that has
    such axes; None: its own.
    """

    tensor: Tensor
    layer: int
    weight: bool
    units: tuple[int, ...] = ()
    grid: tuple[int, ...] | None = None


class Trainee(Protocol):
    """``m`` networks that see the same batches."""

    recipes: list[Recipe]
    parts: list[Part]
    layers: int

    def forward(self, x: Tensor, ids: Tensor, step: int) -> Tensor:
        """Training outputs [m, b, outputs] for inputs [b, features] or [m, b, features]."""
        ...

    def evaluate(self, x: Tensor) -> Tensor:
        """Evaluation outputs [m, n, outputs] for inputs [n, features]."""
        ...

    def dead(self, x: Tensor) -> list[float]:
        """For each network the share of hidden units that are 0 on every row of ``x``; NaN without
        ReLU.
        """
        ...

    def spread(self, values: Tensor) -> Tensor:
        """One number a network, shaped to broadcast over a parameter's slice of those networks."""
        ...

    def members(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """The slice of a parameter, or of its gradient, that belongs to networks ``start`` to
        ``stop``; shares memory.
        """
        ...

    def per_member(self, gradient: Tensor) -> Tensor:
        """A gradient as [m, everything else]."""
        ...

    def save(self, member: int) -> list[Tensor]:
        """A copy of one network's weights and statistics."""
        ...

    def restore(self, member: int, saved: list[Tensor]) -> None:
        """Write back what :meth:`save` gave."""
        ...

    def module(self, member: int) -> nn.Module:
        """One network as a module of its own, in evaluation mode."""
        ...

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        """Announce the examples and steps of the coming batches, in order."""
        ...

    def finish(self) -> None:
        """Training is over: let go of what only its masks needed."""
        ...


class Solo:
    """One network, any module. Its hosts are keyed by the recipe's seed."""

    def __init__(self, recipe: Recipe, split: Split, net: nn.Module | None = None) -> None:
        self.recipes = [recipe]
        self.net = build(recipe, split) if net is None else net
        self.key: ModelKey | None = (
            key(self.net, recipe.seed) if any(True for _ in dropout_modules(self.net)) else None
        )
        self.parts = []
        layers: dict[int, int] = {}  # id of a parameter -> its weight layer
        turned: dict[
            int, tuple[int, ...]
        ] = {}  # id of a transposed weight -> [groups, in / groups, out / groups, ...]
        weighted = [m for m in self.net.modules() if isinstance(m, WEIGHTED)]
        for i, module in enumerate(weighted):
            layers.update({id(p): i for p in module.parameters(recurse=False)})
            if isinstance(module, nn.modules.conv._ConvTransposeNd):
                turned[id(module.weight)] = (module.groups, -1, *module.weight.shape[1:])
        self.layers = max(1, len(weighted))
        last = 0
        for p in self.net.parameters():
            last = layers.get(id(p), last)
            matrix = id(p) in layers and p.dim() > 1
            if p.requires_grad:
                grid = turned.get(id(p))
                units = (
                    (1, *range(3, len(grid)))
                    if grid
                    else tuple(range(1, p.dim()))
                    if matrix
                    else ()
                )
                self.parts.append(Part(p, last, matrix, units, grid))

    def forward(self, x: Tensor, ids: Tensor, step: int) -> Tensor:
        self.net.train()
        if self.key:
            self.key.at(step, ids)
        return self.net(x[0] if x.dim() == 3 else x)[None]

    def evaluate(self, x: Tensor) -> Tensor:
        self.net.eval()
        return self.net(x)[None]

    def dead(self, x: Tensor) -> list[float]:
        alive: list[Tensor] = []

        def look(module: nn.Module, _: object, out: Tensor) -> None:
            alive.append((out > 0).transpose(0, 1).flatten(1).any(1))

        relus = [
            m
            for m in self.net.modules()
            if isinstance(m, nn.ReLU) or isinstance(getattr(m, "activation", None), nn.ReLU)
        ]
        with _hooked(relus, look):
            self.evaluate(x)
        return [1.0 - torch.cat(alive).float().mean().item() if alive else float("nan")]

    def spread(self, values: Tensor) -> Tensor:
        return values[0]

    def members(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        return tensor

    def per_member(self, gradient: Tensor) -> Tensor:
        return gradient.reshape(1, -1)

    def save(self, member: int) -> list[Tensor]:
        return [t.detach().clone() for t in self.net.state_dict().values()]

    def restore(self, member: int, saved: list[Tensor]) -> None:
        for now, then in zip(self.net.state_dict().values(), saved, strict=True):
            now.copy_(then)

    def module(self, member: int) -> nn.Module:
        return self.net.eval()

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        """One network draws its masks as it goes."""

    def finish(self) -> None:
        if self.key:  # the trained network's masks are again its new owner's affair
            self.key.remove()


def runs(values: Sequence[Any]) -> Iterator[tuple[int, int, Any]]:
    """Neighbours with equal values: (start, stop, value)."""
    for value, group in groupby(enumerate(values), key=lambda pair: pair[1]):
        some = [i for i, _ in group]
        yield some[0], some[-1] + 1, value


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: object) -> Iterator[None]:
    handles = [m.register_forward_hook(hook) for m in modules]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
