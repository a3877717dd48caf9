"""Inserting dropout layers into a model, without changing its code or its names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .._errors import InputError
from ..algebra.drop import Drop
from ..algebra.schedule import SCHEDULES, Schedule
from ..nn.layer_of import layer_of
from ..nn.module import DropoutModule
from ..nn.spec_layer import SpecLayer
from ..nn.wrapper import ModuleWrapper
from .edits import Edits, Insertion, apply_edits
from .model_access import unwrap_compiled
from .targets import Where, targets


class DropResult:
    """A forward hook that applies a dropout layer to the result of a module.

    Of a tuple, the first element is dropped: it is the output, and the rest is state.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, args: Any, result: Any) -> Any:
        if isinstance(result, tuple) and result and not isinstance(result, PackedSequence):
            parts = (_drop(self.layer, result[0], module), *result[1:])
            return type(result)(*parts) if hasattr(result, "_fields") else parts
        return _drop(self.layer, result, module)


class DropFirstArgument:
    """A forward pre-hook that applies a dropout layer to the first argument of a module.

    An argument that is passed by name is found by the signature of the module's forward.
    """

    def __init__(self, layer: nn.Module, module: nn.Module) -> None:
        self.layer, self.names = layer, tuple(inspect.signature(module.forward).parameters)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (_drop(self.layer, args[0], module), *args[1:]), kwargs
        for name in (*self.names, *kwargs):
            if name in kwargs:
                return args, {**kwargs, name: _drop(self.layer, kwargs[name], module)}
        return args, kwargs


def _drop(layer: nn.Module, x: Any, module: nn.Module) -> Any:
    """Apply the layer; packed sequences are padded for it, so that examples and steps are axes."""
    if isinstance(x, (Tensor, Proxy)):
        return layer(x)
    if isinstance(x, PackedSequence):
        first = not (isinstance(layer, SpecLayer) and layer.base_spec.of.startswith("t"))
        padded, lengths = pad_packed_sequence(x, batch_first=first)
        return pack_padded_sequence(layer(padded), lengths, batch_first=first, enforce_sorted=False)
    raise InputError(
        f"a dropout layer was inserted at a {type(module).__name__} and drops tensors, but got a "
        f"{type(x).__name__}; undo, and name a module inside that takes or returns a tensor"
    )


def insert(
    model: nn.Module,
    spec: float | str | Drop | Schedule | Callable[[str, nn.Module], nn.Module | None],
    *,
    after: Where = None,
    before: Where = None,
) -> Edits:
    """Insert dropout layers after or before modules of ``model``, in place.

    Each place gets a layer of its own. It is a child of the module, named ``dropout_after`` or
    ``dropout_before``, so that keys, modes, ``train()`` and :func:`find` reach it; no name of a
    parameter changes, and checkpoints load. For a Sequential its last (first) module is used. A
    module that is in several places, or is called several times, has one layer for all of them.
    A place that has its layer already is left as it is, so a second call changes nothing. Compiled
    models compile again at their next call.

    Of a module that returns a tuple, the first element is dropped; of several arguments, the first.
    Everything is checked before the first change; a module that takes or returns no tensor raises
    when it is called.

    Args:
        model: The model to change.
        spec: What to insert: a rate, the name of a preset, a Drop, or a schedule of the rate; or a
            function of the name and the module that returns a layer, or None to leave that place.
        after: The modules after which dropout goes: a class, a name or the end of one, a regular
            expression, or a function of name and module; ``after=torch.nn.ReLU`` is every hidden
            activation.
        before: The modules before which dropout goes; ``before="fc"`` is the head of many models.

    Returns:
        The changes; ``undo()`` removes the layers.

    Raises:
        InputError: Where not exactly one of ``after`` and ``before`` is given, where it matches no
            module, or matches a list of modules, which is never called.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> edits = insert(model, 0.5, after=nn.ReLU)
        >>> edits
        after 1: Dropout(p=0.5, inplace=False)
        >>> edits.undo()
    """
    if (after is None) == (before is None):
        raise InputError("insert needs after= or before=, one of them, such as after=torch.nn.ReLU")
    model, is_before = unwrap_compiled(model), before is not None
    found = targets(model, before if is_before else after, can_insert_at, "module")
    return apply_edits(insertions(found, spec, is_before))


def insertions(
    found: Iterable[tuple[str, nn.Module]],
    spec: float | str | Drop | Schedule | Callable[[str, nn.Module], nn.Module | None],
    before: bool,
) -> list[Insertion]:
    """Return the edits that insert layers before or after modules that have none there yet.

    Nothing is changed yet.
    """
    child = "dropout_before" if before else "dropout_after"
    edits: list[Insertion] = []
    for path, named in found:
        module = module_called_at(path, named, before)
        if child in module._modules or any(edit.module is module for edit in edits):
            continue
        layer = (
            spec(path, module)
            if callable(spec) and not isinstance(spec, SCHEDULES)
            else layer_of(spec)
        )
        if layer is None:
            continue
        layer.train(module.training)
        edits.append(
            Insertion(
                path=path,
                child=child,
                module=module,
                layer=layer,
                before=before,
                hook=DropFirstArgument(layer, module) if before else DropResult(layer),
            )
        )
    return edits


def can_insert_at(module: nn.Module) -> bool:
    """Return whether dropout may be inserted at the module: not at another dropout layer, except
    one that drops the weights of a module.
    """
    return not isinstance(module, DropoutModule) or isinstance(module, ModuleWrapper)


def module_called_at(path: str, module: nn.Module, before: bool) -> nn.Module:
    """Return the module that runs first (``before``) or last in ``module``.

    A Sequential calls all of its children, so a layer that is its child would run as one more.
    """
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0 if before else -1]
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise InputError(
            f"{path or 'the model'} is a {type(module).__name__} that is not called; "
            "name a module inside"
        )
    return module
