"""Calls of functions in the code of a module, as places where a dropout layer can be put."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

CallPath: TypeAlias = tuple[tuple[str, int, int], ...]  # (file, first line, instruction) per frame
CallSite: TypeAlias = tuple[str, CallPath]  # the name of the function, and the path to its call
CallHandler: TypeAlias = Callable[[Any, Any, Any], Any]  # takes (function, args, kwargs)

_MODULE_CALL = nn.Module._call_impl.__code__
# Frames of these files depend on which hooks and modes are on, not on the code of the model.
_IGNORED_FILES = (
    _MODULE_CALL.co_filename,
    *(str(p) for p in Path(__file__).parent.glob("*.py")),
)
CHECKPOINT = str(Path(torch.__file__).parent / "utils" / "checkpoint.py")


def find_caller() -> tuple[nn.Module | None, CallPath]:
    """Return the module that calls, in its code, the function of a mode now, and the call path.

    The call path leads from the module's forward to the call. It holds the code and the instruction
    of each frame, so that two calls on one line differ, and so do two ways to one helper function.
    It is the same whether or not other modes and hooks are on.
    """
    # The walk goes outward, from this call to the nearest frame that runs a module's forward.
    frame: Any = sys._getframe(1)
    path: list[tuple[str, int, int]] = []
    while frame is not None:
        code = frame.f_code
        if code is _MODULE_CALL:
            return frame.f_locals["self"], tuple(path)
        # torch.compile may call an intercepted forward without nn.Module's own __call__ above it.
        if code is InterceptedForward.run.__code__:
            return frame.f_locals["self"].module, tuple(path)
        # Frames inside __torch_function__ come from a mode that handled the call before this one.
        # The call in the code of the model is outside of it, so what was collected is dropped.
        if code.co_name == "__torch_function__":
            path.clear()
        elif code.co_filename not in _IGNORED_FILES:
            path.append((code.co_filename, code.co_firstlineno, frame.f_lasti))
        frame = frame.f_back
    return None, tuple(path)


class InterceptedForward:
    """A module's forward that sends some of the calls in its code through handlers.

    It is set as the ``forward`` of the instance, so no code and no name changes. ``handlers`` maps
    a call site to the handler that makes the call. A compiled model runs such a module outside of
    its graphs, because a graph would record the calls once, without the handlers.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        # some libraries set a forward on the instance too, which has to be restored
        self.original = module.__dict__.get("forward")
        self.handlers: dict[CallSite, CallHandler] = {}

    @property
    def __wrapped__(self) -> Any:
        """The original forward; ``inspect`` and others read its signature."""
        return self.original or type(self.module).forward.__get__(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _run_outside_graph(self, args, kwargs)
        return self.run(args, kwargs)

    def run(self, args: Any, kwargs: Any) -> Any:
        """Run the original forward with its calls intercepted."""
        with _Interception(self):
            return self.__wrapped__(*args, **kwargs)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _run_outside_graph(forward: InterceptedForward, args: Any, kwargs: Any) -> Any:
    return forward.run(args, kwargs)


class _Interception(TorchFunctionMode):
    """Hands the calls at the sites of a forward to their handlers.

    A function mode sees every call of a torch function, however the code of the model imported it,
    where patching ``torch.nn.functional`` would miss names that were imported before.
    """

    def __init__(self, forward: InterceptedForward) -> None:
        super().__init__()
        self.forward = forward
        self.names = {name for name, _ in forward.handlers}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        # The walk over the frames is slow, so it is made for functions with a handler only.
        if name in self.names:
            module, path = find_caller()
            # Calls of child modules pass here too, and are none of this module's sites.
            ours = module is self.forward.module
            handler = self.forward.handlers.get((name, path)) if ours else None
            if handler is not None:
                return handler(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def intercept(module: nn.Module) -> InterceptedForward:
    """Return the intercepted forward of a module; one is set where there is none."""
    forward = module.__dict__.get("forward")
    if not isinstance(forward, InterceptedForward):
        forward = module.__dict__["forward"] = InterceptedForward(module)
    return forward


def stop_intercepting(module: nn.Module) -> None:
    """Restore the original forward of a module if no handler is left."""
    forward = module.__dict__.get("forward")
    if isinstance(forward, InterceptedForward) and not forward.handlers:
        del module.__dict__["forward"]
        if forward.original is not None:
            module.__dict__["forward"] = forward.original
