"""Draws that stand in the source of a module's class, for a model that is not run."""

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

from .draws import DRAW, DROPOUTS, MASKS, RECURRENT, name_of

_SEEN = DRAW - RECURRENT  # networks of these are layers, read by their attributes
_METHODS: dict[str, Any] = {
    n: f for f in _SEEN if getattr(Tensor, n := getattr(f, "__name__", ""), None) is f
}
_ATTENTION = {F.scaled_dot_product_attention: (4, 13), F.multi_head_attention_forward: (10, 13)}


@dataclass(frozen=True)
class Drawing:
    """A call that draws: the ``rate`` where the source or the module says it, and in which modes it
    surely does.
    """

    kind: str
    function: str
    where: str
    rate: float | None
    in_train: bool
    in_eval: bool


def drawings(module: nn.Module) -> Iterator[Drawing]:
    """What ``module.forward`` calls that draws: by itself, by its own methods, and by functions of
    Python that it calls.

    Names are resolved as Python would, in the module of the class. torch's own classes are not
    read.
    """
    if type(module).__module__.startswith("torch."):
        return
    todo: list[Any] = [getattr(type(module), "forward", None)]
    visited: set[Any] = set()
    while todo:
        function = inspect.unwrap(todo.pop(0))
        if (
            function in visited
            or not isinstance(function, FunctionType)
            or function.__module__.startswith("torch.")
        ):
            continue
        visited.add(function)
        own = len(visited) == 1 or hasattr(type(module), function.__name__)
        for call, line in _calls(function):
            meant = _meant(call.func, function, module)
            if isinstance(meant, (FunctionType, MethodType)) and meant not in _SEEN:
                todo.append(getattr(meant, "__func__", meant))
            elif (found := _drawing(meant, call, module if own else None)) is not None:
                kind, rate, in_train, in_eval = found
                path = function.__code__.co_filename
                shown = f"random.{meant.__name__}" if kind == "python" else name_of(meant)
                yield Drawing(kind, shown, f"{path}:{line}", rate, in_train, in_eval)


def _calls(function: FunctionType) -> Iterator[tuple[ast.Call, int]]:
    """The calls in a function's source, with their lines; none where there is no source."""
    try:
        lines, start = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in sorted(found, key=lambda n: (n.lineno, n.col_offset)):
        yield node, start + node.lineno - 1


def _meant(node: ast.expr, function: FunctionType, module: nn.Module) -> Any:
    """The function that an expression stands for; None where that is not known."""
    names: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        names.append(at.attr)
        at = at.value
    if isinstance(at, ast.Name) and at.id == "self" and names:
        held: Any = type(module) if len(names) == 1 else module
    elif isinstance(at, ast.Name) and at.id not in function.__code__.co_varnames:
        held = function.__globals__.get(at.id)
    else:
        held = None
    for name in reversed(names):
        held = getattr(held, name, None)
    if held is None and isinstance(
        node, ast.Attribute
    ):  # a method of something: a tensor's, by its name
        return _METHODS.get(node.attr)
    return held


def _drawing(
    func: Any, call: ast.Call, module: nn.Module | None
) -> tuple[str, float | None, bool, bool] | None:
    """(kind, rate, in training, in evaluation), or None for what does not draw."""
    if isinstance(func, BuiltinMethodType | MethodType) and getattr(
        func, "__self__", None
    ) is getattr(random, "_inst", None):
        return "python", None, True, False
    try:
        if func not in _SEEN:
            return None
    except TypeError:  # not hashable, so no function
        return None
    if func in DROPOUTS:
        switch, default = DROPOUTS[func]
        rate, _ = _number(_argument(call, 1, "p"), module, 0.5)
        on = _argument(call, 2, switch)
        in_train, in_eval = (default, default) if on is None else _modes(on, module)
        return "dropout", rate, in_train and rate != 0, in_eval and rate != 0
    if func in _ATTENTION:
        given = _argument(call, _ATTENTION[func][0], "dropout_p")
        rate, tied = _number(given, module, 0.0)
        on = (
            _argument(call, _ATTENTION[func][1], "training")
            if func is F.multi_head_attention_forward
            else None
        )
        in_train, in_eval = (
            _modes(on, module) if on is not None else (True, rate is not None and not tied)
        )
        return None if rate == 0 else ("attention", rate, in_train, in_eval)
    return ("mask" if func in MASKS else "noise"), None, True, False


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    if len(call.args) > place and not any(
        isinstance(a, ast.Starred) for a in call.args[: place + 1]
    ):
        return call.args[place]
    return next((k.value for k in call.keywords if k.arg == name), None)


def _held(node: ast.expr, module: nn.Module | None) -> Any:
    """The value of a constant, or of an attribute of the module; None where that is not known."""
    if isinstance(node, ast.Constant):
        return node.value
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    held: Any = module if isinstance(node, ast.Name) and node.id == "self" else None
    for name in reversed(names):
        held = getattr(held, name, None)
    return held


def _tied(node: ast.expr) -> bool:
    """Does an expression ask for the mode?"""
    return any(isinstance(n, ast.Attribute) and n.attr == "training" for n in ast.walk(node))


def _number(
    node: ast.expr | None, module: nn.Module | None, otherwise: float
) -> tuple[float | None, bool]:
    """(a rate, is it tied to the mode)."""
    if node is None:
        return otherwise, False
    tied = _tied(node)
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    values = [
        v
        for v in (_held(part, module) for part in parts)
        if isinstance(v, (int, float)) and not isinstance(v, bool)
    ]
    return (max(values) if values else None), tied


def _modes(node: ast.expr, module: nn.Module | None) -> tuple[bool, bool]:
    """In which modes a switch is on: (training, evaluation). One that is not understood counts as
    on in training.
    """
    if _tied(node):
        turned = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        return not turned, turned
    value = _held(node, module)
    return (value, value) if isinstance(value, bool) else (True, False)
