"""Dropout without effect, or out of reach: a result that is not used (L33), a layer that is
never called (L34), layers in a list of Python (L35).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..finding import Finding
from .functional import MODES
from .layers import applied, bases, is_keras, is_torch, layer, methods, sampling
from .module import Module, argument, is_true, number
from .names import dotted


def dropout_result_unused(module: Module) -> Iterator[Finding]:
    """Signal: a statement in a function that consists of a call of F.dropout, or of a dropout layer
    on a value, and nothing else. Let pass: ``inplace=True``; the top level of files and notebooks;
    functions that test or show something by name.
    """
    for call in module.calls:
        if not isinstance(module.parents[call], ast.Expr) or not call.args:
            continue
        functions = module.functions_of(call)
        if not functions or any(
            re.match(r"(test|check|show|demo|main)", f.name) for f in functions
        ):
            continue
        mode = MODES.get(module.called(call))
        drop = applied(module, call)
        if mode is not None:
            in_place = argument(call, "inplace", 3)
        elif drop is not None and drop.draws:
            in_place = argument(drop.call, "inplace", 1)
        else:
            continue
        if in_place is None or (isinstance(in_place, ast.Constant) and not is_true(in_place)):
            text = f"the result of {module.source(call.func)} is not used: nothing is dropped"
            yield module.finding("L33", call, text)


_REACHED = re.compile(
    r"getattr|__dict__|vars\(|_modules|\b(named_)?(children|modules)\(|forward_hook"
)


def dropout_never_called(module: Module) -> Iterator[Finding]:
    """Signal: ``__init__`` of a torch module, or of a Keras layer or model, keeps a dropout layer
    with a rate that is not 0 as an attribute, and no code of the file reads it. Let pass: classes
    with a base that the file does not show, or that reach their layers by getattr, children() or
    modules(); classes without a forward; files in which another object has an attribute of that
    name that is read; names that a class of the file reads in a method that it shares.
    """
    reads: dict[str, list[ast.Attribute]] = {}
    for node in module.children:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            reads.setdefault(node.attr, []).append(node)
    owners = {module.class_of(c) for c in module.calls if (d := layer(module, c)) and d.draws}
    for owner in module.classes:
        if owner not in owners or not _is_closed(module, owner):
            continue
        family = _family(module, owner)
        if any(_REACHED.search(ast.unparse(c)) for c in family):
            continue
        for method in methods(owner):
            if method.name != "__init__":
                continue
            for statement in module.own(method, ast.Assign):
                path = dotted(statement.targets[0]) or ""
                drop = layer(module, statement.value)
                if drop is None or not drop.draws or not re.fullmatch(r"self\.\w+", path):
                    continue
                name = path.removeprefix("self.")
                used = any(
                    dotted(node) != path or module.class_of(node) in family
                    for node in reads.get(name, [])
                )
                if not used and len(statement.targets) == 1:
                    text = f"{path} is never called: {drop.name} has no effect"
                    yield module.finding("L34", statement, text)


def _is_closed(module: Module, owner: ast.ClassDef) -> bool:
    """Whether a file shows all that a class inherits, and that it runs."""
    known = bases(module, owner) - {"object"}
    if not known or not (is_torch(module, owner) or is_keras(module, owner)):
        return False
    plain = {"torch.nn.Module", "keras.layers.Layer", "keras.Model"}
    runs = any(m.name in ("forward", "call") for c in _family(module, owner) for m in methods(c))
    return known <= plain and runs


def _family(module: Module, owner: ast.ClassDef) -> list[ast.ClassDef]:
    """A class with its bases and derived classes in the file."""
    family = [owner]
    for _ in range(4):
        for other in module.classes:
            names = {dotted(b) for c in family for b in c.bases}
            derived = {dotted(b) for b in other.bases} & {c.name for c in family}
            if other not in family and (other.name in names or derived):
                family.append(other)
    return family


def dropout_in_a_python_list(module: Module) -> Iterator[Finding]:
    """Signal: a torch module keeps dropout layers in a list, tuple or dict of Python as an
    attribute, so that ``eval()`` does not reach them. Let pass: attributes that the class passes to
    ModuleList, Sequential or another call, or registers one by one by add_module; rate 0; Monte
    Carlo by name.
    """
    for owner in module.classes:
        if not is_torch(module, owner):
            continue
        for method in methods(owner):
            for statement in module.own(method, ast.Assign):
                path = dotted(statement.targets[0]) or ""
                held = [
                    node
                    for node in _held(module, statement.value)
                    if (known := layer(module, node)) is not None
                    and known.framework == "torch"
                    and known.draws
                ]
                if (
                    held
                    and re.fullmatch(r"self\.\w+", path)
                    and not _is_registered(module, owner, path)
                    and not sampling(module, statement)
                ):
                    text = f"{path} is a list of Python: eval() does not reach the dropout in it"
                    yield module.finding("L35", statement, text)


def _held(module: Module, node: ast.expr) -> list[ast.expr]:
    """The expressions that a list, tuple, dict or comprehension of them holds directly."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return list(node.elts)
    if isinstance(node, ast.Dict):
        return list(node.values)
    if isinstance(node, ast.ListComp):
        return [node.elt]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        inside = node.left if number(node.left) is None else node.right
        return _held(module, inside)
    return []


def _is_registered(module: Module, owner: ast.ClassDef, path: str) -> bool:
    """Whether a class hands an attribute to something that registers modules."""
    for method in methods(owner):
        for call in module.own(method, ast.Call):
            name = (dotted(call.func) or "").rpartition(".")[2]
            if name in ("append", "extend", "range", "len", "enumerate", "zip", "reversed"):
                continue
            values = [a.value if isinstance(a, ast.Starred) else a for a in call.args]
            if any(dotted(value) == path for value in values):
                return True
        for value, _ in module.assigned(method, path):
            if isinstance(value, ast.Call):
                return True
    text = ast.unparse(owner)
    return bool(re.search(rf"for \w+(, \w+)* in .*{re.escape(path)}.*:\n.*add_module", text))
