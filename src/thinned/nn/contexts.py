"""Values for modules that hold within a ``with`` statement, in its thread and coroutine.

Nothing is written on the modules, so a context never reaches another thread or coroutine, leaves
nothing behind in whatever order contexts end, and is not part of a copied or pickled model.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode

Kind = Literal["mode", "frozen_key", "tape", "training"]
CallHandler = Callable[..., Any]  # takes (call, func, args, kwargs) and returns call(*args, ...)


@dataclass(eq=False, kw_only=True)
class Context:
    """What one ``with`` statement sets.

    Args:
        values: For each kind the values of modules.
        functions: The torch functions that ``handler`` makes; empty for none.
        handler: What makes a call of these functions, in eager code.
        bypasses_fused: Whether torch's fused transformer kernels must not bypass the modules. A
            function mode on the stack keeps torch from using them.
    """

    values: Mapping[Kind, Mapping[Any, Any]] = field(default_factory=dict)
    functions: frozenset[Any] = frozenset()
    handler: CallHandler | None = None
    bypasses_fused: bool = False
    active: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        # no other module has the id as long as ``values`` keeps this one
        self.by_id: dict[Kind, dict[int, Any]] = {
            kind: {id(module): value for module, value in values.items()}
            for kind, values in self.values.items()
        }

    @property
    def needs_function_mode(self) -> bool:
        """Whether torch functions of the thread have to pass a mode while this is active."""
        return bool(self.functions) or self.bypasses_fused


# Whether any context is active in the process; where none is, layers read nothing more.
_any_active = False
_number_active = 0
_ACTIVE: ContextVar[tuple[Context, ...]] = ContextVar("thinned contexts", default=())


class _ThreadState:
    """The contexts that were entered in one thread, as compiled graphs read them.

    A graph cannot read a context variable, but guards on the attributes of a thread-local object.
    """

    def __init__(self) -> None:
        self.entered: list[Context] = []
        self.values: dict[Kind, dict[int, Any]] = {}
        self.has_coroutines = False
        self.function_mode: _FunctionMode | None = None

    def update(self) -> None:
        """Take ``values`` from the contexts that are still active."""
        self.entered = [context for context in self.entered if context.active]
        values: dict[Kind, dict[int, Any]] = {}
        for context in self.entered:
            for kind, by_id in context.by_id.items():
                values[kind] = {**values.get(kind, {}), **by_id}
        self.values = values
        self.has_coroutines = self.has_coroutines and bool(self.entered)


class _Thread(threading.local):
    def __init__(self) -> None:
        # no default on the class: Dynamo would take it for a constant
        self.state = _ThreadState()


_THREAD = _Thread()
_LOCK = threading.Lock()


def _no(*_: Any) -> bool:
    return False


def _undispatched(function: Any) -> Any:
    """A copy of a function of torch that is run as it is, and not handed to modes."""
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    names = {**function.__globals__, **dict.fromkeys(checks, _no)}
    copied = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


# While a mode handles a function, it is off within. Backward passes run parts of the forward pass
# again, and the mode has to be on there.
_BACKWARD = {
    f: _undispatched(f)
    for f in (torch.Tensor.backward, torch.autograd.backward, torch.autograd.grad)
}


class _FunctionMode(TorchFunctionMode):
    """Sends calls of torch functions through the handlers of the active contexts."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = func
        if func in _BACKWARD and not torch.compiler.is_compiling():
            with self:
                return _BACKWARD[func](*args, **(kwargs or {}))
        if not torch.compiler.is_compiling():
            # The handler of the innermost context is called last, so what it sets holds.
            for context in reversed(_ACTIVE.get()):
                if context.active and context.handler is not None and func in context.functions:
                    call = partial(_handled, context.handler, call, func)
        return call(*args, **(kwargs or {}))


def _handled(handler: CallHandler, call: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
    return handler(call, func, args, kwargs)


def any_active() -> bool:
    """Whether a context is active anywhere in the process."""
    return _any_active


def value_of(kind: Kind, module: object) -> Any:
    """Return what the innermost active context sets for ``module``, or None."""
    if not _any_active:
        return None
    if torch.compiler.is_compiling():
        state = _THREAD.state
        if state.has_coroutines:
            return _value_outside_graph(kind, module)
        values = state.values.get(kind)
        return None if values is None else values.get(id(module))
    for context in reversed(_ACTIVE.get()):
        if context.active and (values := context.by_id.get(kind)) is not None:
            value = values.get(id(module))
            if value is not None:
                return value
    return None


@torch.compiler.disable
def _value_outside_graph(kind: Kind, module: object) -> Any:
    # With coroutines the contexts of the thread are not those of the running coroutine.
    return value_of(kind, module)


@contextmanager
def entered(context: Context) -> Iterator[None]:
    """Make ``context`` active for the code within, in this thread and coroutine."""
    global _any_active, _number_active
    state = _THREAD.state
    asyncio = sys.modules.get("asyncio")
    _ACTIVE.set((*(c for c in _ACTIVE.get() if c.active), context))
    with _LOCK:
        context.active = True
        _number_active += 1
        _any_active = True
        state.entered.append(context)
        if asyncio is not None and asyncio._get_running_loop() is not None:
            state.has_coroutines = True
        state.update()
    _update_function_mode(state)
    try:
        yield
    finally:
        # The end may come in another coroutine or thread, from a generator that is closed there.
        with _LOCK:
            context.active = False
            _number_active -= 1
            _any_active = _number_active > 0
            state.update()
        _ACTIVE.set(tuple(c for c in _ACTIVE.get() if c.active))
        if state is _THREAD.state:
            _update_function_mode(state)


def _update_function_mode(state: _ThreadState) -> None:
    """Push or remove the function mode of this thread, as its contexts need it."""
    needed = any(context.needs_function_mode for context in state.entered)
    if needed and state.function_mode is None:
        state.function_mode = _FunctionMode()
        torch.overrides._push_mode(state.function_mode)
    elif not needed and state.function_mode is not None:
        mode, above = state.function_mode, []
        state.function_mode = None
        # Contexts of other coroutines may have put modes on top of it.
        while torch._C._len_torch_function_stack():
            top = torch.overrides._pop_mode()
            if top is mode:
                break
            above.append(top)
        for other in reversed(above):
            torch.overrides._push_mode(other)
