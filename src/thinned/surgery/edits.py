"""The changes of a model, as records that make a change and take it back."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..algebra.drop import Drop
from ..algebra.schedule import Schedule
from ..nn.module import RatedModule
from ..nn.spec_layer import SpecLayer
from .calls import CallHandler, CallSite, intercept, stop_intercepting


@dataclass(frozen=True, kw_only=True)
class Swap:
    """A module that is replaced by another, as the child ``child`` of ``parent``."""

    path: str
    parent: nn.Module
    child: str
    old: nn.Module
    new: nn.Module

    def do(self) -> None:
        """Put the new module in place of the old one."""
        self.parent._modules[self.child] = self.new

    def undo(self) -> None:
        """Put the old module back, unless another module has taken the place since."""
        if self.parent._modules.get(self.child) is self.new:
            self.old.train(self.new.training)
            self.parent._modules[self.child] = self.old

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


@dataclass(frozen=True, kw_only=True)
class SpecChange:
    """A dropout layer that gets another dropout spec."""

    path: str
    layer: SpecLayer
    old: Drop
    new: Drop

    def undo(self) -> None:
        """Give the layer its old spec, at its present rate."""
        self.layer.set_spec(self.old)

    def __str__(self) -> str:
        old, new = type(self.old.scale).__name__, type(self.new.scale).__name__
        return f"{self.path}: {old.lower()} -> {new.lower()}"


@dataclass(frozen=True, kw_only=True)
class WeightScaling:
    """A parameter that is multiplied by ``factor``."""

    path: str
    parameter: Tensor
    old: Tensor
    factor: float

    def undo(self) -> None:
        """Restore the old values exactly."""
        with torch.no_grad():
            self.parameter.copy_(self.old)

    def __str__(self) -> str:
        return f"{self.path}: times {self.factor:g}"


@dataclass(frozen=True, kw_only=True)
class AttributeChange:
    """A numeric attribute of a module, or of a configuration, that is set."""

    path: str
    holder: Any
    attribute: str
    old: float
    new: float

    def do(self) -> None:
        """Set the attribute to the new value."""
        setattr(self.holder, self.attribute, self.new)

    def undo(self) -> None:
        """Set the attribute to the old value."""
        setattr(self.holder, self.attribute, self.old)

    def __str__(self) -> str:
        return f"{self.path or '(the model)'}.{self.attribute}: {self.old:g} -> {self.new:g}"


@dataclass(frozen=True, kw_only=True)
class ScheduleChange:
    """A dropout layer of thinned that gets a schedule of its rate, or another one."""

    path: str
    layer: RatedModule
    old: Schedule | None
    old_rate: float
    new: Schedule

    def do(self) -> None:
        """Give the layer the schedule, at its rate of step 0."""
        self.layer.set_initial_rate(self.new)

    def undo(self) -> None:
        """Give the layer its old schedule and rate."""
        self.layer.set_initial_rate(self.old_rate)
        self.layer.schedule = self.old

    def __str__(self) -> str:
        return f"{self.path or '(the model)'}.p: {self.old or f'{self.old_rate:g}'} -> {self.new}"


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """A dropout layer that is put before or after a module, as its child ``child``."""

    path: str
    child: str
    module: nn.Module
    layer: nn.Module
    before: bool
    hook: Any = field(compare=False)
    handles: list[Any] = field(default_factory=list, compare=False)

    def do(self) -> None:
        """Make the layer a child of the module, and apply it by a hook."""
        self.module._modules[self.child] = self.layer
        if self.before:
            self.handles.append(self.module.register_forward_pre_hook(self.hook, with_kwargs=True))
        else:
            self.handles.append(self.module.register_forward_hook(self.hook))

    def undo(self) -> None:
        """Remove the layer, unless another module has taken its place since."""
        for handle in self.handles:
            handle.remove()
        if self.module._modules.get(self.child) is self.layer:
            del self.module._modules[self.child]

    def __str__(self) -> str:
        return f"{'before' if self.before else 'after'} {self.path or 'the model'}: {self.layer}"


@dataclass(frozen=True, kw_only=True)
class ForwardChange:
    """A module with a new forward, which leaves dropped units or examples out.

    ``old``: the forward that the instance had, or None where it used that of its class.
    """

    path: str
    module: nn.Module
    old: Any
    new: Any

    def do(self) -> None:
        """Set the new forward on the instance."""
        self.module.__dict__["forward"] = self.new

    def undo(self) -> None:
        """Restore the old forward, unless another one was set since."""
        if self.module.__dict__.get("forward") is self.new:
            if self.old is None:
                del self.module.__dict__["forward"]
            else:
                self.module.__dict__["forward"] = self.old

    def __str__(self) -> str:
        return f"{self.path}: {self.module} {self.new.action}"


@dataclass(frozen=True, kw_only=True)
class CallInsertion:
    """A dropout layer that is put at a call in the code of a module, as its child ``child``.

    ``line``: the file and line of the call.
    """

    path: str
    child: str
    module: nn.Module
    layer: nn.Module
    call: CallSite
    handler: CallHandler
    line: str

    def do(self) -> None:
        """Make the layer a child of the module, and send the call through the handler."""
        self.module._modules[self.child] = self.layer
        intercept(self.module).handlers[self.call] = self.handler

    def undo(self) -> None:
        """Remove the layer and the handler, unless another module has taken the place since."""
        if self.module._modules.get(self.child) is self.layer:
            del self.module._modules[self.child]
            intercept(self.module).handlers.pop(self.call, None)
            stop_intercepting(self.module)

    def __str__(self) -> str:
        path = f"{self.path}.{self.child}".lstrip(".")
        return f"{path}: {self.layer} for {self.call[0]} at {self.line}"


Edit: TypeAlias = (
    Swap
    | SpecChange
    | WeightScaling
    | AttributeChange
    | ScheduleChange
    | Insertion
    | CallInsertion
    | ForwardChange
)


@dataclass(frozen=True)
class Edits:
    """The changes that one function made to a model; printed, one line per change and note.

    Every function of surgery returns one. ``len(edits)`` is the number of changes.

    Args:
        edits: The changes, in the order in which they were made. Each has the ``path`` of what it
            changed (the qualified name of a module or parameter), and ``undo()``.
        notes: Texts about the changes: reasons, sources, and what was left as it was.

    Example:
        >>> import torch, thinned
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        >>> edits = thinned.set_rate(model, 0.1)
        >>> edits
        1.p: 0.5 -> 0.1
        >>> edits.undo()
        >>> model[1].p
        0.5
    """

    edits: tuple[Edit, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.edits)

    def undo(self) -> None:
        """Take all changes back, the last one first.

        A module that has taken the place of a changed one since then is left there.
        """
        for edit in reversed(self.edits):
            edit.undo()
        reset_compiled_graphs(self.edits)

    def __repr__(self) -> str:
        return "\n".join(
            [
                *map(str, self.edits or ["nothing changed"]),
                *(f"note: {note}" for note in self.notes),
            ]
        )


def apply_edits(
    edits: Iterable[
        Swap | AttributeChange | ScheduleChange | Insertion | CallInsertion | ForwardChange
    ],
    notes: Iterable[str] = (),
) -> Edits:
    """Make all changes or, where one raises, none; return them as :class:`Edits`."""
    result = Edits(tuple(edits), tuple(notes))
    try:
        for edit in edits:
            edit.do()
    except BaseException:
        result.undo()
        raise
    reset_compiled_graphs(result.edits)
    return result


def reset_compiled_graphs(edits: tuple[Edit, ...]) -> None:
    """Make compiled models compile again at their next call, where layers or forwards changed.

    torch.compile guards on parameters and attributes, but not on hooks that came later, so a graph
    from before would be run without the new layer. Changed attributes and specs need no reset.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and any(
        isinstance(edit, (Swap, Insertion, CallInsertion, ForwardChange)) for edit in edits
    ):
        dynamo.reset()
