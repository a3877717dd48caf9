"""Canonical names: imports and aliases resolved to one dotted name for each thing."""

from __future__ import annotations

import ast
import re
from functools import cache

# Other paths of a name, each with the path that the rules know. The order matters: a later row sees
# what an earlier one wrote. The layers and functions of thinned take torch's and Keras's paths, so
# that each rule holds for them without a second list; layers.py knows the names that only thinned
# has.
_PATHS = (
    (re.compile(r"^thinned\.nn\.(\w+\.)*(?=[A-Z]\w*$)"), "torch.nn."),
    (
        re.compile(
            r"^thinned\.nn\.(\w+\.)?"
            r"(?=(key|key_of|step|off|frozen|sampling|recording|replaying)$)"
        ),
        "thinned.",
    ),
    (re.compile(r"^thinned\.functional\.(\w+\.)?(?=\w+$)"), "torch.nn.functional."),
    (re.compile(r"^thinned\.presets\.(\w+\.)?(?=\w+$)"), "thinned.presets."),
    (re.compile(r"^thinned\.keras\.layers\.(\w+\.)*(?=[A-Z]\w*$)"), "keras.layers."),
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
    """The canonical path of a dotted name that has several."""
    for pattern, path in _PATHS:
        name = pattern.sub(path, name)
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


# the packages of which ``import *`` is read: the package, and the framework of its layers
_STARS = {
    "torch.nn": "torch.nn",
    "keras.layers": "keras.layers",
    "flax.linen": "flax.linen",
    "thinned.nn": "torch.nn",
    "thinned.keras.layers": "keras.layers",
}


class Imports:
    """The names that the imports of a file bind, wherever in the file they stand, and top-level
    aliases of them.
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
        for top_level in body:
            self._alias(top_level)

    def _from(self, statement: ast.ImportFrom) -> None:
        package = "." * statement.level + (statement.module or "")
        for alias in statement.names:
            if alias.name == "*":
                self.stars.append(package)
            else:
                path = f"{package}.{alias.name}".replace("..", ".")
                self.table[alias.asname or alias.name] = path

    def _alias(self, statement: ast.stmt) -> None:
        """``layers = tf.keras.layers`` is an alias; ``def dropout`` and other assignments hide an
        import.
        """
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.table.pop(statement.name, None)
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                path = (
                    self.resolve(statement.value)
                    if isinstance(statement.value, (ast.Attribute, ast.Name))
                    else None
                )
                self.table.pop(target.id, None)
                if path:
                    self.table[target.id] = path

    def resolve(self, node: ast.AST) -> str | None:
        """The canonical dotted name of an expression that starts with an imported name; None for
        other expressions.
        """
        name = dotted(node)
        if name is None:
            return None
        first, _, rest = name.partition(".")
        path = self.table.get(first)
        if path is None:
            return self._starred(name)
        return canonical(f"{path}.{rest}" if rest else path)

    def _starred(self, name: str) -> str | None:
        """The canonical name of a capitalized name that an ``import *`` of a package of layers may
        have bound.
        """
        if "." in name or not name[:1].isupper():
            return None
        packages = (_STARS.get(canonical(package)) for package in self.stars)
        return next((f"{package}.{name}" for package in packages if package), None)
