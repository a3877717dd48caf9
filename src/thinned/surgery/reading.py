"""Random draws in the source of a module's class, for a model that is not run."""

from __future__ import annotations

import ast
import inspect
import random
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, Literal
from weakref import WeakKeyDictionary

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
    for source in _sources(module):
        owner = module if source.is_method else None
        parents = source.parsed.parents
        for call, target in source.calls:
            if (found := _classify(target, call, owner)) is not None:
                kind, rate, in_train, in_eval = found
                python = kind == "python"
                yield SourceDraw(
                    kind=kind,
                    function=_name(call, target, python),
                    where=f"{source.function.__code__.co_filename}:{source.line(call)}",
                    rate=rate,
                    in_train=in_train,
                    in_eval=in_eval and not _only_in_training(call, parents),
                )


def _only_in_training(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a branch that tests the mode makes a call in training only."""
    child, parent = node, parents.get(node)
    while parent is not None:
        if isinstance(parent, (ast.If, ast.IfExp)) and _reads_mode(parent.test):
            body = parent.body if isinstance(parent, ast.If) else [parent.body]
            negated = isinstance(parent.test, ast.UnaryOp) and isinstance(parent.test.op, ast.Not)
            if child is not parent.test and (child in body) != negated:
                return True
        child, parent = parent, parents.get(parent)
    return False


def _name(call: ast.Call, target: Any, python: bool) -> str:
    if target is None:
        return ast.unparse(call.func)
    return f"random.{target.__name__}" if python else function_name(target)


@dataclass
class _Parsed:
    """The syntax tree of a function; all modules of a class share it."""

    nodes: list[ast.AST]
    parents: dict[ast.AST, ast.AST]
    start: int  # the first line
    calls: list[ast.Call]  # in order


_PARSED: WeakKeyDictionary[FunctionType, _Parsed | None] = WeakKeyDictionary()


def _parsed(function: FunctionType) -> _Parsed | None:
    """Parse the source of a function once; None where there is none."""
    if function not in _PARSED:
        try:
            lines, start = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError):
            _PARSED[function] = None
        else:
            nodes = list(ast.walk(tree))
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            calls.sort(key=lambda node: (node.lineno, node.col_offset))
            parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
            _PARSED[function] = _Parsed(nodes, parents, start, calls)
    return _PARSED[function]


@dataclass
class _Source:
    """The source of one function that a module runs."""

    function: FunctionType
    is_method: bool  # ``self`` is the module, so its attributes are known
    parsed: _Parsed
    calls: list[tuple[ast.Call, Any]]  # in order, with what is called where that is known

    def line(self, node: ast.expr | ast.stmt) -> int:
        """The line of a node in its file."""
        return self.parsed.start + node.lineno - 1


def _sources(module: nn.Module) -> Iterator[_Source]:
    """Yield the source of ``forward`` and of the methods and functions that it calls."""
    if type(module).__module__.startswith("torch."):
        return
    queue: list[Any] = [getattr(type(module), "forward", None)]
    visited: set[Any] = set()
    while queue:
        function = inspect.unwrap(queue.pop(0))
        if (
            function in visited
            or not isinstance(function, FunctionType)
            or (function.__module__ or "").startswith("torch.")
        ):
            continue
        visited.add(function)
        # In a method, ``self`` is the module, so its attributes are known. In any other function a
        # parameter of that name can be another object.
        is_method = len(visited) == 1 or hasattr(type(module), function.__name__)
        parsed = _parsed(function)
        if parsed is None:
            continue
        calls = [(call, _resolve(call.func, function, module)) for call in parsed.calls]
        yield _Source(function, is_method, parsed, calls)
        for _, target in calls:
            if _is_function(target):
                queue.append(getattr(target, "__func__", target))


def _is_function(target: Any) -> bool:
    """Whether the source of what is called is read, as it is no function that draws."""
    return isinstance(target, (FunctionType, MethodType)) and target not in _READ


@dataclass(frozen=True, kw_only=True)
class ModeUse:
    """What a module does with its ``training`` flag.

    Args:
        only_dropout: Whether every use decides about dropout, so that the flag of this module
            alone switches its dropout and nothing else.
        reads_mode: Whether there is any use.
        hidden: The places where the mode decides about dropout in a way that switching the calls
            does not reach: rates that are 0 in evaluation, and calls that evaluation skips.
    """

    only_dropout: bool
    reads_mode: bool
    hidden: tuple[str, ...]


_SWITCHES = ("training", "train", "dropout_p", "dropout", "p", "drop", "rate", "drop_prob")


def mode_use(module: nn.Module) -> ModeUse:
    """Read how a module's ``forward``, its methods and the functions that it calls use the mode."""
    sources = list(_sources(module))
    drawing = _drawing_functions(sources)
    only_dropout, reads_mode, hidden = True, False, []
    for source in sources:
        parents = source.parsed.parents
        draws = {id(call) for call, target in source.calls if _draws(target, drawing)}
        owner = module if source.is_method else None
        for node in source.parsed.nodes:
            if isinstance(node, ast.Attribute) and node.attr == "training":
                if _is_dead(node, parents, owner):
                    continue
                kind = _use_of_mode(node, parents, draws)
                reads_mode = True
                only_dropout = only_dropout and kind != "other"
                if kind != "switch":
                    hides = kind == "hidden" or _guards_draw(node, parents, draws)
                    where = f"{source.function.__code__.co_filename}:{source.line(node)}"
                    hidden += [where] if hides else []
    return ModeUse(only_dropout=only_dropout, reads_mode=reads_mode, hidden=tuple(hidden))


def _draws(target: Any, drawing: set[Any]) -> bool:
    try:
        return target in _READ or getattr(target, "__func__", target) in drawing
    except TypeError:  # not hashable, so it is not a function
        return False


def _drawing_functions(sources: list[_Source]) -> set[Any]:
    """The functions of a module that draw, themselves or by what they call."""
    drawing: set[Any] = set()
    while True:
        more = {
            source.function
            for source in sources
            if any(_draws(target, drawing) for _, target in source.calls)
        }
        if more <= drawing:
            return drawing
        drawing |= more


def _use_of_mode(
    node: ast.AST, parents: dict[ast.AST, ast.AST], draws: set[int]
) -> Literal["switch", "hidden", "other"]:
    """What reading the flag at ``node`` decides.

    "switch" is the switch of a call that drops; "hidden" another decision about dropout alone.
    """
    child, parent = node, parents.get(node)
    while parent is not None:
        if isinstance(parent, ast.Call):
            # Which mode is passed: to a call that draws, or under a name that says so.
            return "switch" if id(parent) in draws else "other"
        if isinstance(parent, ast.keyword) and parent.arg in _SWITCHES:
            inside = isinstance(child, ast.IfExp)
            return "hidden" if inside else "switch"
        if isinstance(parent, ast.IfExp) and child is parent.test:
            if _is_zero(parent.body) or _is_zero(parent.orelse):
                return "hidden"
            drawing = [_has_draw(part, draws) for part in (parent.body, parent.orelse)]
            quiet = parent.orelse if drawing[0] else parent.body
            return "hidden" if sum(drawing) == 1 and not _has_call(quiet) else "other"
        if isinstance(parent, ast.If) and child is parent.test:
            return "hidden" if _only_draws(parent, draws) else "other"
        if isinstance(parent, ast.stmt):
            return "other"
        child, parent = parent, parents.get(parent)
    return "other"


def _guards_draw(node: ast.AST, parents: dict[ast.AST, ast.AST], draws: set[int]) -> bool:
    """Whether the statement or expression that tests the flag at ``node`` decides about a draw."""
    child, parent = node, parents.get(node)
    while parent is not None and not isinstance(parent, (ast.FunctionDef, ast.Module)):
        if isinstance(parent, (ast.If, ast.IfExp)) and child is parent.test:
            ends = isinstance(parent, ast.If) and isinstance(parent.body[-1], ast.Return)
            rest = list(ast.iter_child_nodes(parents[parent])) if ends else []
            after = [n for n in rest if getattr(n, "lineno", 0) > parent.lineno]
            return any(_has_draw(part, draws) for part in (parent, *after))
        child, parent = parent, parents.get(parent)
    return False


# what code that draws a mask by hand calls besides
_HARMLESS = re.compile(
    "float|len|bool|int|(new_)?(empty|ones|full|zeros)(_like)?|(div|mul|sub|add|floor|ceil)_?|"
    "size|dim|to|view|reshape|expand(_as)?|unsqueeze|type_as|where|masked_fill_?|device"
)


def _only_draws(branch: ast.If, draws: set[int]) -> bool:
    """Whether the body of a branch draws, and does nothing else that lasts."""
    for node in ast.walk(branch):
        if isinstance(node, ast.Call) and id(node) not in draws:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if not _HARMLESS.fullmatch(name):
                return False
        if isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            return False
    return _has_draw(branch, draws) and not branch.orelse


def _is_dead(node: ast.AST, parents: dict[ast.AST, ast.AST], module: nn.Module | None) -> bool:
    """Whether the flag at ``node`` is one of several conditions, and another one is never true."""
    parent = parents.get(node)
    if not isinstance(parent, ast.BoolOp) or not isinstance(parent.op, ast.And):
        return False
    for other in parent.values:
        if _value(other, module) is False:
            return True
        if isinstance(other, ast.Compare) and isinstance(other.ops[0], ast.Gt):
            left, right = _value(other.left, module), _value(other.comparators[0], module)
            numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
            if numbers and not left > right:
                return True
    return False


def _is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not isinstance(node.value, bool) and node.value == 0


def _has_draw(node: ast.AST, draws: set[int]) -> bool:
    return any(id(inner) in draws for inner in ast.walk(node))


def _has_call(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))


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
    if func is None:
        return _classify_unknown(call, module)
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


def _classify_unknown(
    call: ast.Call, module: nn.Module | None
) -> tuple[str, float | None, bool, bool] | None:
    """Classify a call of an unknown function: it draws if its rate depends on the mode.

    Transformer libraries choose the function of attention at run time, and pass the rate to it.
    """
    for keyword in call.keywords:
        if keyword.arg in ("dropout", "dropout_p", "attn_dropout", "attention_dropout"):
            rate, by_mode = _rate(keyword.value, module, 0.0)
            if by_mode and rate != 0:
                return "attention", rate, True, False
    return None


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
