"""What was changed in a model, and how to take it back."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..algebra.drop import Drop
from ..nn import Dropout
from .calls import Handler, Way, tapped, untapped


@dataclass(frozen=True)
class Swap:
    """A module that another took the place of."""

    path: str
    parent: nn.Module
    name: str
    before: nn.Module
    after: nn.Module

    def do(self) -> None:
        """Put the new module there."""
        self.parent._modules[self.name] = self.after

    def undo(self) -> None:
        """Put the module back, unless something else stands there since."""
        if self.parent._modules.get(self.name) is self.after:
            self.before.train(self.after.training)
            self.parent._modules[self.name] = self.before

    def __str__(self) -> str:
        return f"{self.path}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class SpecChange:
    """A dropout layer whose point was changed."""

    path: str
    host: Dropout
    before: Drop
    after: Drop

    def undo(self) -> None:
        """Give the layer its point back, at its present rate."""
        self.host.set_spec(self.before)

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
    module: Any
    attribute: str
    before: float
    after: float

    def do(self) -> None:
        """Set it."""
        setattr(self.module, self.attribute, self.after)

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
    hook: Any = field(compare=False)
    handles: list[Any] = field(default_factory=list, compare=False)

    def do(self) -> None:
        """Make the layer the module's child, and send what passes through it."""
        self.module._modules[self.name] = self.layer
        if self.before:
            self.handles.append(self.module.register_forward_pre_hook(self.hook, with_kwargs=True))
        else:
            self.handles.append(self.module.register_forward_hook(self.hook))

    def undo(self) -> None:
        """Take the layer out, unless something else stands there since."""
        for handle in self.handles:
            handle.remove()
        if self.module._modules.get(self.name) is self.layer:
            del self.module._modules[self.name]

    def __str__(self) -> str:
        return f"{'before' if self.before else 'after'} {self.path or 'the model'}: {self.layer}"


@dataclass(frozen=True)
class Shrink:
    """A linear layer or convolution that computes the kept part alone."""

    path: str
    module: nn.Module
    before: Any  # the forward pass that it had of its own; None: its class's
    after: Any

    def do(self) -> None:
        """Let it compute the kept part."""
        self.module.__dict__["forward"] = self.after

    def undo(self) -> None:
        """Give it its forward pass back, unless it has another since."""
        if self.module.__dict__.get("forward") is self.after:
            if self.before is None:
                del self.module.__dict__["forward"]
            else:
                self.module.__dict__["forward"] = self.before

    def __str__(self) -> str:
        sides = [
            side
            for side, at in (("inputs", self.after.before), ("outputs", self.after.behind))
            if at is not None
        ]
        return f"{self.path}: {self.module} multiplies the kept {' and '.join(sides)} alone"


@dataclass(frozen=True)
class Tapped:
    """A call in a module's code that goes through a layer."""

    path: str
    name: str
    module: nn.Module
    layer: nn.Module
    call: tuple[str, Way]
    handler: Handler
    where: str

    def do(self) -> None:
        """Make the layer the module's child, and send the call through it."""
        self.module._modules[self.name] = self.layer
        tapped(self.module).handlers[self.call] = self.handler

    def undo(self) -> None:
        """Let the call alone, unless something else stands there since."""
        if self.module._modules.get(self.name) is self.layer:
            del self.module._modules[self.name]
            tapped(self.module).handlers.pop(self.call, None)
            untapped(self.module)

    def __str__(self) -> str:
        path = f"{self.path}.{self.name}".lstrip(".")
        return f"{path}: {self.layer} for {self.call[0]} at {self.where}"


Edit: TypeAlias = Swap | SpecChange | Rescaled | Reset | Insertion | Tapped | Shrink


@dataclass(frozen=True)
class Edits:
    """The changes of one call, in order. ``notes``: what else there is to say, such as why, and
    what was left alone.
    """

    edits: tuple[Edit, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.edits)

    def undo(self) -> None:
        """Take everything back. A module that stands in a changed place since stays there."""
        for edit in reversed(self.edits):
            edit.undo()
        forget(self.edits)

    def __repr__(self) -> str:
        return "\n".join(
            [
                *map(str, self.edits or ["nothing changed"]),
                *(f"note: {note}" for note in self.notes),
            ]
        )


def done(
    edits: Iterable[Swap | Reset | Insertion | Tapped | Shrink], notes: Iterable[str] = ()
) -> Edits:
    """Make the changes, all or none, and return what takes them back."""
    made = Edits(tuple(edits), tuple(notes))
    try:
        for edit in edits:
            edit.do()
    except BaseException:
        made.undo()
        raise
    forget(made.edits)
    return made


def forget(edits: tuple[Edit, ...]) -> None:
    """Let compiled models be compiled anew where layers came or went: a graph is not told of new
    hooks.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and any(
        isinstance(edit, (Swap, Insertion, Tapped, Shrink)) for edit in edits
    ):
        dynamo.reset()
