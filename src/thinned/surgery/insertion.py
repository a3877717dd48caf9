"""Dropout in a model that has none, without touching its code or its names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from .._errors import InputError
from ..algebra.drop import Drop
from ..algebra.schedule import SCHEDULES, Schedule
from ..nn import Dropout
from ..nn.host import Host
from .edits import Edits, Insertion, done, plain
from .targets import Where, targets


class Through:
    """A hook that sends what a module takes (or gives) through a dropout layer."""

    def __init__(self, host: nn.Module, before: bool) -> None:
        self.host, self.before = host, before

    def __call__(self, module: nn.Module, given: Any, result: Any = None) -> Any:
        if self.before:
            return (self.host(given[0]), *given[1:])
        if isinstance(result, tuple):  # recurrent networks and attention: the output, then the rest
            return (self.host(result[0]), *result[1:])
        return self.host(result) if isinstance(result, Tensor) else result


def insert(
    model: nn.Module,
    what: float | str | Drop | Schedule | Callable[[str, nn.Module], nn.Module | None],
    *,
    after: Where = None,
    before: Where = None,
) -> Edits:
    """Put dropout after or before modules of ``model``, in place.

    ``what``: a rate, a preset's name, a point, a schedule, or a function of the module's name and the module that gives a
    layer, or None to leave that place alone. ``after`` or ``before``: which modules, by class, name, end of a name, regular
    expression or function, such as ``after=torch.nn.ReLU`` for every hidden activation or ``before="fc"`` for the head. Of
    modules that give tuples the first result goes through it, and of several arguments the first.

    Each place has a layer of its own, which is the module's child ``dropout_after`` (``dropout_before``), so that keys, modes,
    ``train()`` and :func:`find` know it; no name of a parameter changes and checkpoints load. Of a Sequential the last (first)
    module is meant. A module that stands in several places, or is called several times, has one layer for all of them. A place
    that has its layer stays as it is, so doing it again changes nothing. Compiled models are compiled anew at their next
    call. ``.undo()`` takes the layers out.

    All is checked before the first change. Raises :class:`thinned.InputError` unless one of the two is given, where it
    names nothing, and for lists of modules, which are not called.
    """
    if (after is None) == (before is None):
        raise InputError("insert needs after= or before=, one of them, such as after=torch.nn.ReLU")
    model, first = plain(model), before is not None
    found = targets(model, before if first else after, lambda m: not isinstance(m, Host), "module")
    return done(insertions(found, what, first))


def insertions(
    found: Iterable[tuple[str, nn.Module]],
    what: float | str | Drop | Schedule | Callable[[str, nn.Module], nn.Module | None],
    first: bool,
) -> list[Insertion]:
    """The layers to put before (``first``) or after modules, where there is none; nothing is changed yet."""
    child = "dropout_before" if first else "dropout_after"
    edits: list[Insertion] = []
    for path, named in found:
        module = called(path, named, first)
        if child in module._modules or any(edit.module is module for edit in edits):
            continue
        layer = what(path, module) if callable(what) and not isinstance(what, SCHEDULES) else Dropout(what)
        if layer is None:
            continue
        layer.train(module.training)
        edits.append(Insertion(path, child, module, layer, first, Through(layer, first)))
    return edits


def called(path: str, module: nn.Module, first: bool) -> nn.Module:
    """The module that runs first (last) in ``module``: a Sequential would run a child of its own."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0 if first else -1]
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        raise InputError(f"{path or 'the model'} is a {type(module).__name__} that is not called; name a module inside")
    return module
