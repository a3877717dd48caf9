"""What names stand for: imports and aliases resolved to one dotted name each."""

from __future__ import annotations

import ast
import re
from functools import cache

# Old and private homes of a name, each beside the one that the rules know.
_HOMES = (
    (re.compile(r"^(tensorflow|tf)\.(python\.|compat\.v2\.)?keras\b"), "keras"),
    (re.compile(r"^(tf_keras|keras\.(src|api|_tf_keras\.keras))\b"), "keras"),
    (
        re.compile(
            r"^keras\.(models|engine\.sequential|engine\.training|engine)\.(Sequential|Model)$"
        ),
        r"keras.\2",
    ),
    (re.compile(r"^keras\.layers\.(\w+\.)+(\w+)$"), r"keras.layers.\2"),
    (re.compile(r"^keras\.(engine\.)?(base_layer\.)?Layer$"), "keras.layers.Layer"),
    (re.compile(r"^torch\.nn\.modules\.(\w+\.)?(\w+)$"), r"torch.nn.\2"),
    (re.compile(r"^torch\.nn\.parallel\.distributed\."), "torch.nn.parallel."),
    (re.compile(r"^flax\.linen\.(\w+\.)+(\w+)$"), r"flax.linen.\2"),
    (re.compile(r"^jax\._src\.random\."), "jax.random."),
    (re.compile(r"^lightning(\.pytorch)?\."), "pytorch_lightning."),
)


@cache
def canonical(name: str) -> str:
    """The one name of a thing that has several."""
    for pattern, home in _HOMES:
        name = pattern.sub(home, name)
    return name


def dotted(node: ast.AST) -> str | None:
    """``"self.model.head"`` for that expression; None where it is more than names and dots."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


class Imports:
    """The names that a file's imports bind, wherever in the file they stand, and plain aliases of
    them at its top level.
    """

    def __init__(self, statements: list[ast.Import | ast.ImportFrom], body: list[ast.stmt]) -> None:
        self.table: dict[str, str] = {}
        self.stars: list[str] = []
        for statement in statements:
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    top = alias.name.split(".")[0]
                    self.table[alias.asname or top] = alias.name if alias.asname else top
            else:
                self._from(statement)
        for made in body:
            self._alias(made)

    def _from(self, statement: ast.ImportFrom) -> None:
        home = "." * statement.level + (statement.module or "")
        for alias in statement.names:
            if alias.name == "*":
                self.stars.append(home)
            else:
                self.table[alias.asname or alias.name] = f"{home}.{alias.name}".replace("..", ".")

    def _alias(self, statement: ast.stmt) -> None:
        """``layers = tf.keras.layers`` is an alias; ``def dropout`` and other assignments hide an
        import.
        """
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.table.pop(statement.name, None)
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                meant = (
                    self.resolve(statement.value)
                    if isinstance(statement.value, (ast.Attribute, ast.Name))
                    else None
                )
                self.table.pop(target.id, None)
                if meant:
                    self.table[target.id] = meant

    def resolve(self, node: ast.AST) -> str | None:
        """The canonical dotted name of an expression whose first name was imported; else None."""
        name = dotted(node)
        if name is None:
            return None
        first, _, rest = name.partition(".")
        home = self.table.get(first)
        if home is None:
            return self._starred(name)
        return canonical(f"{home}.{rest}" if rest else home)

    def _starred(self, name: str) -> str | None:
        """A name that some ``import *`` brought, where the package is one whose names are known to
        be capitalised layers.
        """
        if "." in name or not name[:1].isupper():
            return None
        known = ("torch.nn", "keras.layers", "flax.linen")
        return next(
            (f"{canonical(home)}.{name}" for home in self.stars if canonical(home) in known), None
        )
