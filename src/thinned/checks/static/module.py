"""A parsed file, with the queries of the rules: names, scopes, classes, places."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from ..finding import Change, Finding
from .names import Imports, dotted

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"
_N = TypeVar("_N", bound=ast.AST)
_BREAK = re.compile(r"\r\n|\r|\n")


class Module:
    """One file: its tree, with parents, calls, functions and classes in text order."""

    def __init__(
        self, text: str, filename: str, tree: ast.Module, cells: Sequence[tuple[int, int]] = ()
    ) -> None:
        """``cells``: in a notebook, the first line of each code cell in the text and its number."""
        self.text, self.filename, self.tree, self.cells = text, filename, tree, cells
        self.parents: dict[ast.AST, ast.AST] = {}
        self.children: dict[ast.AST, list[ast.AST]] = {}
        self.calls: list[ast.Call] = []
        self.functions: list[Function] = []
        self.classes: list[ast.ClassDef] = []
        imports: list[ast.Import | ast.ImportFrom] = []
        stack: list[ast.AST] = [tree]
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Call):
                self.calls.append(node)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions.append(node)
            elif isinstance(node, ast.ClassDef):
                self.classes.append(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                imports.append(node)
            children = self.children[node] = _inside(node)
            for child in children:
                self.parents[child] = node
            stack.extend(reversed(children))
        self.imports = Imports(imports, tree.body)
        self._bound: dict[ast.AST, set[str]] = {}
        self._own: dict[tuple[ast.AST, type[ast.AST]], list[Any]] = {}
        self._called: dict[ast.Call, str] = {}
        # results about nodes that several rules need
        self.memo: dict[tuple[str, ast.AST], Any] = {}
        self._assigned: dict[ast.AST, dict[str, list[tuple[ast.expr, ast.stmt]]]] = {}

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text as Python counts them, without their ends."""
        return _BREAK.split(self.text)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around a node, the nearest first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def functions_of(self, node: ast.AST) -> list[Function]:
        """The functions around a node, the nearest first."""
        return [
            a
            for a in self.ancestors(node)
            if isinstance(a, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]

    def function_of(self, node: ast.AST) -> Function | None:
        """The function that contains a node."""
        return next(iter(self.functions_of(node)), None)

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """The class that contains a node, in its body or a method."""
        return next((a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)), None)

    def method_of(self, node: ast.AST) -> Function | None:
        """The method that contains a node: a function directly in a class."""
        return next(
            (f for f in self.functions_of(node) if isinstance(self.parents[f], ast.ClassDef)), None
        )

    def scope_of(self, node: ast.AST) -> Function | ast.Module:
        """The function that contains a node, or the file."""
        return self.function_of(node) or self.tree

    def own(self, scope: ast.AST, kind: type[_N]) -> list[_N]:
        """The nodes of one kind in the code of a scope, in order, without those of functions and
        classes that it defines.
        """
        if (scope, ast.AST) not in self._own:
            nodes: list[ast.AST] = []
            stack = list(reversed(self.children[scope]))
            while stack:
                node = stack.pop()
                nodes.append(node)
                if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    stack.extend(reversed(self.children[node]))
            self._own[scope, ast.AST] = nodes
        if (scope, kind) not in self._own:
            self._own[scope, kind] = [
                node for node in self._own[scope, ast.AST] if isinstance(node, kind)
            ]
        return self._own[scope, kind]

    def named(self, name: str) -> list[Function]:
        """The functions of that name outside classes."""
        return [
            f
            for f in self.functions
            if f.name == name and not isinstance(self.parents[f], ast.ClassDef)
        ]

    def bound(self, function: Function) -> set[str]:
        """The names that a function binds itself: parameters, assigned names, functions."""
        if function not in self._bound:
            names = set(parameters(function))
            names |= {n.id for n in self.own(function, ast.Name) if isinstance(n.ctx, ast.Store)}
            names |= {f.name for f in self.own(function, ast.FunctionDef)}
            self._bound[function] = names
        return self._bound[function]

    def name(self, node: ast.AST) -> str | None:
        """The canonical dotted name of an expression that was imported, such as
        ``torch.nn.functional.dropout``; None for other expressions.
        """
        path = self.imports.resolve(node)
        if path is None:
            return None
        first = (dotted(node) or "").partition(".")[0]
        return None if any(first in self.bound(f) for f in self.functions_of(node)) else path

    def called(self, node: ast.AST) -> str:
        """The canonical name of a called function; "" where it is unknown or not a call."""
        if not isinstance(node, ast.Call):
            return ""
        if node not in self._called:
            self._called[node] = self.name(node.func) or ""
        return self._called[node]

    def assigned(self, scope: ast.AST, name: str) -> list[tuple[ast.expr, ast.stmt]]:
        """The pairs (value, statement) of all assignments to a name or ``self.x`` in the code of a
        scope. For a tuple of targets, the value is the whole tuple.
        """
        if scope not in self._assigned:
            table: dict[str, list[tuple[ast.expr, ast.stmt]]] = {}
            for node in self.own(scope, ast.stmt):
                targets: list[ast.expr] = []
                if isinstance(node, ast.Assign):
                    targets = [
                        t for target in node.targets for t in getattr(target, "elts", [target])
                    ]
                elif isinstance(node, (ast.AnnAssign, ast.AugAssign)) and node.value:
                    targets = [node.target]
                for path in dict.fromkeys(filter(None, map(dotted, targets))):
                    table.setdefault(path, []).append((node.value, node))  # type: ignore[attr-defined]
            self._assigned[scope] = table
        return self._assigned[scope].get(name, [])

    def producer(self, use: ast.expr) -> ast.expr | None:
        """The expression that was last assigned to a local name before a use; None where a branch
        lies between.
        """
        if not isinstance(use, ast.Name):
            return None
        before = [
            (v, s)
            for v, s in self.assigned(self.scope_of(use), use.id)
            if place(s, end=True) <= place(use)
        ]
        if not before:
            return None
        value, statement = max(before, key=lambda pair: place(pair[1]))
        return value if self.parents[statement] in set(self.ancestors(use)) else None

    def at(self, line: int, column: int) -> int:
        """A column in characters, from a column of ast, which counts bytes."""
        text = self.lines[line - 1]
        return column if text.isascii() else len(text.encode()[:column].decode(errors="ignore"))

    def line(self, number: int) -> str:
        """A line of the text in words: "line 3", in a notebook "line 3 of cell 2"."""
        if not self.cells:
            return f"line {number}"
        start, cell = max(pair for pair in self.cells if pair[0] <= number)
        return f"line {number - start + 1} of cell {cell}"

    def finding(
        self,
        code: str,
        node: ast.AST,
        message: str,
        changes: tuple[Change, ...] = (),
        remedy: str = "",
    ) -> Finding:
        """A finding at a node."""
        line, column = node.lineno, node.col_offset  # type: ignore[attr-defined]
        return Finding(
            code,
            message,
            file=self.filename,
            line=line,
            column=self.at(line, column),
            source=self.lines[line - 1],
            changes=changes,
            remedy=remedy,
        )

    def segment(self, node: ast.AST) -> str:
        """The source of an expression; its lines end in ``\\n``."""
        return self.between(place(node), place(node, end=True))

    def between(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        """The text between two places in the coordinates of ast."""
        lines = self.lines[start[0] - 1 : end[0]]
        first, last = self.at(*start), self.at(*end)
        if len(lines) == 1:
            return lines[0][first:last]
        return "\n".join([lines[0][first:], *lines[1:-1], lines[-1][:last]])

    def source(self, node: ast.AST, most: int = 60) -> str:
        """The source of an expression in one line, cut where it is long."""
        text = " ".join(self.segment(node).split())
        return text if len(text) <= most else text[: most - 3] + "..."

    def replace(self, node: ast.expr, text: str) -> Change:
        """The change that replaces an expression by a text."""
        (line, column), (end_line, end_column) = place(node), place(node, end=True)
        return Change(line, self.at(line, column), end_line, self.at(end_line, end_column), text)


# fields of operators, which share one object in the whole tree
_BARE = {"ctx", "op", "ops"}
# the fields of each kind of node that contain other nodes
_FIELDS = {
    kind: ()
    if kind in (ast.Name, ast.Constant)
    else tuple(field for field in kind._fields if field not in _BARE)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}


def _inside(node: ast.AST) -> list[ast.AST]:
    """The nodes in a node, in the order of its fields."""
    found: list[ast.AST] = []
    for field in _FIELDS[type(node)]:
        value = getattr(node, field, None)
        if type(value) is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def place(node: ast.AST, end: bool = False) -> tuple[int, int]:
    """(line, column) of the start or end of a node."""
    if end:
        return node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]
    return node.lineno, node.col_offset  # type: ignore[attr-defined]


def parameters(function: Function | ast.Lambda) -> list[str]:
    """The parameters of a function, in order."""
    a = function.args
    return [
        p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))
    ]


def default(function: Function, name: str) -> ast.expr | None:
    """The default of a parameter of a function; None where it has none."""
    a = function.args
    by_place = zip([*a.posonlyargs, *a.args][::-1], a.defaults[::-1], strict=False)
    return next(
        (
            d
            for p, d in [*by_place, *zip(a.kwonlyargs, a.kw_defaults, strict=True)]
            if p.arg == name
        ),
        None,
    )


def argument(call: ast.Call, name: str, index: int | None = None) -> ast.expr | None:
    """The argument that a call passes for a parameter, by keyword or by place; None for none."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if (
        index is not None
        and index < len(call.args)
        and not any(isinstance(a, ast.Starred) for a in call.args[: index + 1])
    ):
        return call.args[index]
    return None


def opaque(call: ast.Call) -> bool:
    """Whether a call passes ``*args`` or ``**kwargs``, so that its arguments are unknown."""
    return any(isinstance(a, ast.Starred) for a in call.args) or any(
        k.arg is None for k in call.keywords
    )


def number(node: ast.AST | None) -> float | None:
    """The value of a literal number; None for other expressions."""
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and not isinstance(node.value, bool)
    ):
        return float(node.value)
    return None


def is_true(node: ast.AST | None) -> bool:
    """Whether a node is the literal True."""
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.AST | None) -> bool:
    """Whether a node is the literal False."""
    return isinstance(node, ast.Constant) and node.value is False
