"""Dropout in a model that has none, without touching its code or its names."""

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
from .edits import Edits, Insertion, done
from .model_access import plain
from .targets import Where, targets


class Through:
    """A hook that sends what a module gives through a dropout layer."""

    def __init__(self, host: nn.Module) -> None:
        self.host = host

    def __call__(self, module: nn.Module, given: Any, result: Any) -> Any:
        if (
            isinstance(result, tuple) and result and not isinstance(result, PackedSequence)
        ):  # the output, then the rest
            parts = (_dropped(self.host, result[0], module), *result[1:])
            return type(result)(*parts) if hasattr(result, "_fields") else parts
        return _dropped(self.host, result, module)


class Before:
    """A hook that sends the first thing that a module takes through a dropout layer, by whichever
    name it comes.
    """

    def __init__(self, host: nn.Module, module: nn.Module) -> None:
        self.host, self.names = host, tuple(inspect.signature(module.forward).parameters)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (_dropped(self.host, args[0], module), *args[1:]), kwargs
        for name in (*self.names, *kwargs):
            if name in kwargs:
                return args, {**kwargs, name: _dropped(self.host, kwargs[name], module)}
        return args, kwargs


def _dropped(host: nn.Module, x: Any, module: nn.Module) -> Any:
    """What goes through the layer. Packed sequences go padded, so that examples and steps are axes."""
    if isinstance(x, (Tensor, Proxy)):
        return host(x)
    if isinstance(x, PackedSequence):
        first = not (isinstance(host, SpecLayer) and host.base_spec.of.startswith("t"))
        padded, lengths = pad_packed_sequence(x, batch_first=first)
        return pack_padded_sequence(host(padded), lengths, batch_first=first, enforce_sorted=False)
    raise InputError(
        f"dropout stands at a {type(module).__name__} and drops tensors, but got a {type(x).__name__}; "
        "undo, and name a module inside that takes or gives a tensor"
    )


def insert(
    model: nn.Module,
    spec: float | str | Drop | Schedule | Callable[[str, nn.Module], nn.Module | None],
    *,
    after: Where = None,
    before: Where = None,
) -> Edits:
    """Put dropout after or before modules of ``model``, in place.

    ``spec``: a rate, a preset's name, a Drop, a schedule, or a function of the module's name and
    the module that gives a layer, or None to leave that place alone. ``after`` or ``before``: which
    modules, by class, name, end of a name, regular expression or function, such as
    ``after=torch.nn.ReLU`` for every hidden activation or ``before="fc"`` for the head. Of modules
    that give tuples the first result goes through it, and of several arguments the first.

    Each place has a layer of its own, which is the module's child ``dropout_after``
    (``dropout_before``), so that keys, modes, ``train()`` and :func:`find` know it; no name of a
    parameter changes and checkpoints load. Of a Sequential the last (first) module is meant. A
    module that stands in several places, or is called several times, has one layer for all of them.
    A place that has its layer stays as it is, so doing it again changes nothing. Compiled models
    are compiled anew at their next call. ``.undo()`` takes the layers out.

    All is checked before the first change; where a module turns out to take or give no tensor, its
    call raises. Raises :class:`thinned.InputError` unless one of the two is given, where it names
    nothing, and for lists of modules, which are not called.
    """
    if (after is None) == (before is None):
        raise InputError("insert needs after= or before=, one of them, such as after=torch.nn.ReLU")
    model, first = plain(model), before is not None
    found = targets(model, before if first else after, placeable, "module")
    return done(insertions(found, spec, first))


def insertions(
    found: Iterable[tuple[str, nn.Module]],
    spec: float | str | Drop | Schedule | Callable[[str, nn.Module], nn.Module | None],
    first: bool,
) -> list[Insertion]:
    """The layers to put before (``first``) or after modules, where there is none; nothing is
    changed yet.
    """
    child = "dropout_before" if first else "dropout_after"
    edits: list[Insertion] = []
    for path, named in found:
        module = called(path, named, first)
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
                path,
                child,
                module,
                layer,
                first,
                Before(layer, module) if first else Through(layer),
            )
        )
    return edits


def placeable(module: nn.Module) -> bool:
    """May dropout stand before or after the module? Not beside other dropout, unless that is on a
    module's weights.
    """
    return not isinstance(module, DropoutModule) or isinstance(module, ModuleWrapper)


def called(path: str, module: nn.Module, first: bool) -> nn.Module:
    """The module that runs first (last) in ``module``: a Sequential would run a child of its own."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0 if first else -1]
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise InputError(
            f"{path or 'the model'} is a {type(module).__name__} that is not called; name a module inside"
        )
    return module
