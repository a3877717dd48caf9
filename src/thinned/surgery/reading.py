"""Random draws in the source of a module's class, for a model that is not run."""

from __future__ import annotations

import ast
import inspect
import random
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .costs import RECURRENT
from .draws import DRAWING, DROPOUTS, MASKS, function_name

_READ = DRAWING - RECURRENT  # recurrent networks are layers, which are read by their attributes
_METHODS: dict[str, Any] = {
    n: f for f in _READ if getattr(Tensor, n := getattr(f, "__name__", ""), None) is f
}
# function: (position of dropout_p, position of training)
_ATTENTION = {F.scaled_dot_product_attention: (4, 13), F.multi_head_attention_forward: (10, 13)}


@dataclass(frozen=True, kw_only=True)
class SourceDraw:
    """A call that draws, in the source. ``rate`` is None where neither the source nor the module
    says it; a mode counts where the call certainly draws in it.
    """

    kind: str
    function: str
    where: str
    rate: float | None
    in_train: bool
    in_eval: bool


def source_draws(module: nn.Module) -> Iterator[SourceDraw]:
    """Yield the draws of ``module.forward``, of its own methods, and of functions that it calls.

    Names are resolved as Python resolves them in the module of the class. The classes of torch are
    not read.
    """
    if type(module).__module__.startswith("torch."):
        return
    queue: list[Any] = [getattr(type(module), "forward", None)]
    visited: set[Any] = set()
    while queue:
        function = inspect.unwrap(queue.pop(0))
        if (
            function in visited
            or not isinstance(function, FunctionType)
            or function.__module__.startswith("torch.")
        ):
            continue
        visited.add(function)
        # In a method, ``self`` is the module, so its attributes are known. In any other function a
        # parameter of that name can be another object.
        is_method = len(visited) == 1 or hasattr(type(module), function.__name__)
        for call, line in _calls(function):
            target = _resolve(call.func, function, module)
            if isinstance(target, (FunctionType, MethodType)) and target not in _READ:
                queue.append(getattr(target, "__func__", target))
            elif (found := _classify(target, call, module if is_method else None)) is not None:
                kind, rate, in_train, in_eval = found
                python = kind == "python"
                yield SourceDraw(
                    kind=kind,
                    function=f"random.{target.__name__}" if python else function_name(target),
                    where=f"{function.__code__.co_filename}:{line}",
                    rate=rate,
                    in_train=in_train,
                    in_eval=in_eval,
                )


def _calls(function: FunctionType) -> Iterator[tuple[ast.Call, int]]:
    """Yield the calls in the source of a function, with their lines; none without source."""
    try:
        lines, start = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in sorted(found, key=lambda n: (n.lineno, n.col_offset)):
        yield node, start + node.lineno - 1


def _resolve(node: ast.expr, function: FunctionType, module: nn.Module) -> Any:
    """Return the function to which an expression refers; None where that is unknown."""
    names: list[str] = []
    base: ast.expr = node
    while isinstance(base, ast.Attribute):
        names.append(base.attr)
        base = base.value
    if isinstance(base, ast.Name) and base.id == "self" and names:
        # self.method is looked up in the class, to read its source; self.a.b in the instance
        value: Any = type(module) if len(names) == 1 else module
    elif isinstance(base, ast.Name) and base.id not in function.__code__.co_varnames:
        value = function.__globals__.get(base.id)
    else:
        value = None
    for name in reversed(names):
        value = getattr(value, name, None)
    if value is None and isinstance(node, ast.Attribute):
        # a method of an unknown object: a method of Tensor if its name is one that draws
        return _METHODS.get(node.attr)
    return value


def _classify(
    func: Any, call: ast.Call, module: nn.Module | None
) -> tuple[str, float | None, bool, bool] | None:
    """Return (kind, rate, in training, in evaluation), or None for a call that does not draw."""
    if isinstance(func, BuiltinMethodType | MethodType) and getattr(
        func, "__self__", None
    ) is getattr(random, "_inst", None):
        return "python", None, True, False
    try:
        if func not in _READ:
            return None
    except TypeError:  # not hashable, so it is not a function
        return None
    if func in DROPOUTS:
        switch, default = DROPOUTS[func]
        rate, _ = _rate(_argument(call, 1, "p"), module, 0.5)
        on = _argument(call, 2, switch)
        in_train, in_eval = (default, default) if on is None else _modes(on, module)
        return "dropout", rate, in_train and rate != 0, in_eval and rate != 0
    if func in _ATTENTION:
        rate, by_mode = _rate(_argument(call, _ATTENTION[func][0], "dropout_p"), module, 0.0)
        on = (
            _argument(call, _ATTENTION[func][1], "training")
            if func is F.multi_head_attention_forward
            else None
        )
        in_train, in_eval = (
            _modes(on, module) if on is not None else (True, rate is not None and not by_mode)
        )
        return None if rate == 0 else ("attention", rate, in_train, in_eval)
    return ("mask" if func in MASKS else "noise"), None, True, False


def _argument(call: ast.Call, index: int, name: str) -> ast.expr | None:
    """Return an argument of a call, whether it is written by position or by name."""
    if len(call.args) > index and not any(
        isinstance(a, ast.Starred) for a in call.args[: index + 1]
    ):
        return call.args[index]
    return next((k.value for k in call.keywords if k.arg == name), None)


def _value(node: ast.expr, module: nn.Module | None) -> Any:
    """Return the value of a constant or of an attribute of the module; None where it is unknown."""
    if isinstance(node, ast.Constant):
        return node.value
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    value: Any = module if isinstance(node, ast.Name) and node.id == "self" else None
    for name in reversed(names):
        value = getattr(value, name, None)
    return value


def _reads_mode(node: ast.expr) -> bool:
    """Return whether an expression reads an attribute named ``training``."""
    return any(isinstance(n, ast.Attribute) and n.attr == "training" for n in ast.walk(node))


def _rate(
    node: ast.expr | None, module: nn.Module | None, default: float
) -> tuple[float | None, bool]:
    """Return (the rate, whether it depends on the mode); of ``a if ... else b`` the larger rate."""
    if node is None:
        return default, False
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    values = [
        v
        for v in (_value(part, module) for part in parts)
        if isinstance(v, (int, float)) and not isinstance(v, bool)
    ]
    return (max(values) if values else None), _reads_mode(node)


def _modes(node: ast.expr, module: nn.Module | None) -> tuple[bool, bool]:
    """Return whether a switch is on in (training, evaluation); an unknown value counts as
    on in training only.
    """
    if _reads_mode(node):
        negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        return not negated, negated
    value = _value(node, module)
    return (value, value) if isinstance(value, bool) else (True, False)
