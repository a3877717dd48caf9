"""Calls of functions in a module's code, as places where a layer may stand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Way: TypeAlias = tuple[tuple[str, int, int], ...]
Handler: TypeAlias = Callable[[Any, Any, Any], Any]

_CALL = nn.Module._call_impl.__code__
_QUIET = (_CALL.co_filename, *(str(p) for p in Path(__file__).parent.glob("*.py")))
CHECKPOINT = str(Path(torch.__file__).parent / "utils" / "checkpoint.py")


def caller() -> tuple[nn.Module | None, Way]:
    """The module in whose code the function is called that a mode sees now, and the way from its
    forward to the call.

    The way is the code and instruction of each frame, so that two calls on one line differ, and two
    ways to one helper. It is the same with other modes and hooks in between.
    """
    frame: Any = sys._getframe(1)
    way: list[tuple[str, int, int]] = []
    while frame is not None:
        code = frame.f_code
        if code is _CALL:
            return frame.f_locals["self"], tuple(way)
        if code is Tap.run.__code__:  # above it a compiler may stand
            return frame.f_locals["self"].module, tuple(way)
        if code.co_name == "__torch_function__":  # what is inside was called by a mode
            way.clear()
        elif code.co_filename not in _QUIET:
            way.append((code.co_filename, code.co_firstlineno, frame.f_lasti))
        frame = frame.f_back
    return None, tuple(way)


class Tap:
    """In the place of a module's forward: the same, with some calls in its code going through
    handlers.

    ``handlers``: a function's name and the way to its call, to what is done there. A compiled model
    runs such a module outside its graphs.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.own = module.__dict__.get("forward")  # some libraries put one on the instance too
        self.handlers: dict[tuple[str, Way], Handler] = {}

    @property
    def __wrapped__(self) -> Any:
        """The forward that this stands for, whose signature others read."""
        return self.own or type(self.module).forward.__get__(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _outside(self, args, kwargs)
        return self.run(args, kwargs)

    def run(self, args: Any, kwargs: Any) -> Any:
        """The module's forward, watched."""
        with _Tapping(self):
            return self.__wrapped__(*args, **kwargs)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _outside(tap: Tap, args: Any, kwargs: Any) -> Any:
    return tap.run(args, kwargs)


class _Tapping(TorchFunctionMode):
    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self.tap = tap
        self.names = {name for name, _ in tap.handlers}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.names:
            owner, way = caller()
            handler = self.tap.handlers.get((name, way)) if owner is self.tap.module else None
            if handler is not None:
                return handler(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def tapped(module: nn.Module) -> Tap:
    """The tap on a module's forward, made where there is none."""
    tap = module.__dict__.get("forward")
    if not isinstance(tap, Tap):
        tap = module.__dict__["forward"] = Tap(module)
    return tap


def untapped(module: nn.Module) -> None:
    """Give the module its forward back, if no handler is left."""
    tap = module.__dict__.get("forward")
    if isinstance(tap, Tap) and not tap.handlers:
        del module.__dict__["forward"]
        if tap.own is not None:
            module.__dict__["forward"] = tap.own
