"""Random keys of JAX: one key for two dropouts (L27)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..finding import Finding
from .layers import DROPOUTS, attribute, imports, layer
from .module import Module, argument
from .names import dotted

_DRAWS = {
    "jax.random.bernoulli": ("key", 0),
    "haiku.dropout": ("rng", 0),
    "jax.random.dropout": ("key", 0),
}


def key_reused(module: Module) -> Iterator[Finding]:
    """Signal: in one function the same name is the key of two calls of jax.random.bernoulli,
    hk.dropout or an Equinox dropout on one path, or of one call in a loop, and no statement between
    them assigns it. Let pass: keys that are expressions (split, fold_in, next_rng_key), branches
    that exclude each other, other samplers.
    """
    if not imports(module, "jax") and not imports(module, "equinox"):
        return
    for function in module.functions:
        walk = _Walk(module)
        if not any(walk.key(call) for call in module.own(function, ast.Call)):
            continue
        walk.block(function.body, {})
        for call, first in walk.found.items():
            yield module.finding(
                "L27",
                call,
                f"the key {walk.keys[call]} already drew the mask in {module.line(first)}",
            )


class _Walk:
    """Follows which keys have drawn on every path through a function: name -> the line of the first
    draw.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.found: dict[ast.Call, int] = {}
        self.keys: dict[ast.Call, str] = {}

    def block(self, statements: list[ast.stmt], used: dict[str, int]) -> bool:
        """Walk a block; whether it surely leaves the function or the loop."""
        return any(self.statement(node, used) for node in statements)

    def statement(self, node: ast.stmt, used: dict[str, int]) -> bool:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return False
        if isinstance(node, ast.If):
            self.expression(node.test, used)
            first, second = dict(used), dict(used)
            ended, other = self.block(node.body, first), self.block(node.orelse, second)
            used.clear()
            used.update({**({} if other else second), **({} if ended else first)})
            return ended and other
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            self.expression(node.test if isinstance(node, ast.While) else node.iter, used)
            for _ in range(2):
                if not isinstance(node, ast.While):
                    self._bind(node.target, used)
                self.block(node.body, used)
            return False
        if isinstance(node, (ast.With, ast.AsyncWith)):
            return self.block(node.body, used)
        if isinstance(node, ast.Try):
            return self.block([*node.body, *node.orelse, *node.finalbody], used)
        self.expression(node, used)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            self._bind(target, used)
        return isinstance(node, (ast.Return, ast.Raise, ast.Break, ast.Continue))

    def _bind(self, target: ast.AST | None, used: dict[str, int]) -> None:
        for n in ast.walk(target) if target is not None else ():
            if isinstance(n, ast.Name):
                used.pop(n.id, None)

    def expression(self, node: ast.AST, used: dict[str, int]) -> None:
        if isinstance(node, ast.IfExp):
            first, second = dict(used), dict(used)
            self.expression(node.body, first)
            self.expression(node.orelse, second)
            used.update({**first, **second})
            return
        if isinstance(node, ast.Lambda):
            return
        for child in self.module.children[node]:
            self.expression(child, used)
        if isinstance(node, ast.NamedExpr):
            self._bind(node.target, used)
        if isinstance(node, ast.Call):
            key = self.key(node)
            name = dotted(key) if key is not None else None
            if name is not None and name in used and node not in self.found:
                self.found[node], self.keys[node] = used[name], name
            if name is not None:
                used.setdefault(name, node.lineno)

    def key(self, call: ast.Call) -> ast.expr | None:
        """The key that a call of dropout draws with, where it is a name."""
        known = _DRAWS.get(self.module.called(call))
        if known is not None:
            key = argument(call, *known)
        elif _is_equinox(self.module, call):
            key = argument(call, "key")
        else:
            return None
        return key if isinstance(key, ast.Name) else None


def _is_equinox(module: Module, call: ast.Call) -> bool:
    """Whether a call applies a dropout of Equinox that the class declares or assigns."""
    owner, name = module.class_of(call), dotted(call.func) or ""
    if owner is None or not name.startswith("self."):
        return False
    field = name.removeprefix("self.")
    declared = [
        s.annotation
        for s in owner.body
        if isinstance(s, ast.AnnAssign) and dotted(s.target) == field
    ]
    if any((module.name(d) or "").rpartition(".")[2] in DROPOUTS for d in declared):
        return True
    layers = [layer(module, v) for v in attribute(module, call.func)]
    return any(m is not None and m.framework == "equinox" and m.is_dropout for m in layers)
