"""What was changed in a model, and how to take it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..algebra.drop import Drop
from ..nn import Dropout


@dataclass(frozen=True)
class Swap:
    """A module that another took the place of."""

    path: str
    parent: nn.Module
    name: str
    before: nn.Module
    after: nn.Module

    def undo(self) -> None:
        """Put the module back, unless something else stands there since."""
        if self.parent._modules.get(self.name) is self.after:
            self.before.train(self.after.training)
            self.parent._modules[self.name] = self.before

    def __str__(self) -> str:
        return f"{self.path}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Repoint:
    """A dropout layer whose point was changed."""

    path: str
    host: Dropout
    before: Drop
    after: Drop

    def undo(self) -> None:
        """Give the layer its point back, at its present rate."""
        self.host.repoint(self.before)

    def __str__(self) -> str:
        return f"{self.path}: {type(self.before.scale).__name__} -> {type(self.after.scale).__name__}".lower()


@dataclass(frozen=True)
class Rescaled:
    """A parameter that was multiplied."""

    path: str
    parameter: Tensor
    before: Tensor
    factor: float

    def undo(self) -> None:
        """Write the values back as they were."""
        with torch.no_grad():
            self.parameter.copy_(self.before)

    def __str__(self) -> str:
        return f"{self.path}: times {self.factor:g}"


@dataclass(frozen=True)
class Reset:
    """An attribute of a module that was set."""

    path: str
    module: nn.Module
    attribute: str
    before: float
    after: float

    def undo(self) -> None:
        """Set it back."""
        setattr(self.module, self.attribute, self.before)

    def __str__(self) -> str:
        return f"{self.path or '(the model)'}.{self.attribute}: {self.before:g} -> {self.after:g}"


@dataclass(frozen=True)
class Insertion:
    """A dropout layer that was put after or before a module."""

    path: str
    name: str
    module: nn.Module
    layer: nn.Module
    before: bool
    handles: list[Any] = field(default_factory=list, compare=False)

    def do(self, hook: Any) -> None:
        """Make the layer the module's child, and send what passes through it."""
        self.module._modules[self.name] = self.layer
        register = self.module.register_forward_pre_hook if self.before else self.module.register_forward_hook
        self.handles.append(register(hook))

    def undo(self) -> None:
        """Take the layer out, unless something else stands there since."""
        for handle in self.handles:
            handle.remove()
        if self.module._modules.get(self.name) is self.layer:
            del self.module._modules[self.name]

    def __str__(self) -> str:
        return f"{'before' if self.before else 'after'} {self.path}: {self.layer}"


@dataclass(frozen=True)
class Shrink:
    """A linear layer or convolution that computes the kept part alone."""

    path: str
    module: nn.Module
    before: Any  # the forward pass that it had of its own; None: its class's
    after: Any

    def undo(self) -> None:
        """Give it its forward pass back, unless it has another since."""
        if self.module.__dict__.get("forward") is self.after:
            if self.before is None:
                del self.module.__dict__["forward"]
            else:
                self.module.__dict__["forward"] = self.before

    def __str__(self) -> str:
        sides = [side for side, at in (("inputs", self.after.before), ("outputs", self.after.behind)) if at is not None]
        return f"{self.path}: {self.module} multiplies the kept {' and '.join(sides)} alone"


Edit: TypeAlias = Swap | Repoint | Rescaled | Reset | Insertion | Shrink


@dataclass(frozen=True)
class Edits:
    """The changes of one call, in order. ``left``: what was left as it was, and why."""

    edits: tuple[Edit, ...]
    left: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.edits)

    def undo(self) -> None:
        """Take everything back. A module that stands in a changed place since stays there."""
        for edit in reversed(self.edits):
            edit.undo()

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.edits), *self.left]) or "nothing changed"
