"""The ``training`` flag of single modules, as one thread or coroutine reads it."""

from __future__ import annotations

import copyreg
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from torch import nn

from ..nn.contexts import value_of

_LOCK = threading.Lock()
_users: Counter[int] = Counter()


@cache
def _switched(cls: Any) -> type[nn.Module]:
    """A subclass of ``cls``: its flag is what the active context sets, else the stored one."""

    def get(self: nn.Module) -> bool:
        override = value_of("training", self)
        return self.__dict__["training"] if override is None else cast(bool, override)

    def put(self: nn.Module, training: bool) -> None:
        self.__dict__["training"] = training

    def reduce(self: nn.Module, protocol: Any) -> Any:
        """Copy and pickle as an object of the original class."""
        made = cls.__reduce_ex__(self, protocol)
        if isinstance(made, str):
            return made
        arguments = tuple(cls if argument is switched else argument for argument in made[1])
        # pickle allows no other class than the present one for copyreg.__newobj__
        make = _new if made[0] is copyreg.__newobj__ else made[0]  # type: ignore[attr-defined]
        return (cls if make is switched else make, arguments, *made[2:])

    switched: type[nn.Module] = type(
        cls.__name__,
        (cls,),
        {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
            "__reduce_ex__": reduce,
            "training": property(get, put),
            "_thinned_original": cls,
        },
    )
    return switched


def _new(cls: type[nn.Module], *arguments: Any) -> nn.Module:
    return cls.__new__(cls, *arguments)


def original_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module without what :func:`switchable` adds."""
    return getattr(type(module), "_thinned_original", type(module))


@contextmanager
def switchable(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the flags of ``modules`` be set by contexts; the last one out restores their classes."""
    modules = list(modules)
    with _LOCK:
        for module in modules:
            if not _users[id(module)]:
                cls: Any = type(module)
                module.__class__ = _switched(cls)
            _users[id(module)] += 1
    try:
        yield
    finally:
        with _LOCK:
            for module in modules:
                _users[id(module)] -= 1
                if not _users[id(module)]:
                    del _users[id(module)]
                    module.__class__ = original_class(module)
