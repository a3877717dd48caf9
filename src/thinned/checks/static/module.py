"""A parsed file and what rules ask of it: names, scopes, classes, places."""

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
    """One file: its tree, with parents, calls, functions and classes in the order of the text."""

    def __init__(
        self, text: str, filename: str, tree: ast.Module, cells: Sequence[tuple[int, int]] = ()
    ) -> None:
        """``cells``: of a notebook, each code cell's first line in the text and its number."""
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
        self.memo: dict[
            tuple[str, ast.AST], Any
        ] = {}  # what rules found out of nodes and ask again
        self._assigned: dict[ast.AST, dict[str, list[tuple[ast.expr, ast.stmt]]]] = {}

    @cached_property
    def lines(self) -> list[str]:
        """The text's lines as Python counts them, without their ends."""
        return _BREAK.split(self.text)

    # Scopes

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """What encloses a node, the nearest first."""
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
        """The function that a node stands in."""
        return next(iter(self.functions_of(node)), None)

    def class_of(self, node: ast.AST) -> ast.ClassDef | None:
        """The class whose body or methods a node stands in."""
        return next((a for a in self.ancestors(node) if isinstance(a, ast.ClassDef)), None)

    def method_of(self, node: ast.AST) -> Function | None:
        """The method around a node: the function that stands directly in a class."""
        return next(
            (f for f in self.functions_of(node) if isinstance(self.parents[f], ast.ClassDef)), None
        )

    def scope_of(self, node: ast.AST) -> Function | ast.Module:
        """The function that a node stands in, or the file."""
        return self.function_of(node) or self.tree

    def own(self, scope: ast.AST, kind: type[_N]) -> list[_N]:
        """The nodes of one kind in a scope's own code, without that of functions and classes
        defined in it, in order.
        """
        if (scope, ast.AST) not in self._own:
            made: list[ast.AST] = []
            stack = list(reversed(self.children[scope]))
            while stack:
                node = stack.pop()
                made.append(node)
                if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    stack.extend(reversed(self.children[node]))
            self._own[scope, ast.AST] = made
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
        """The names that a function binds itself: parameters, and what it assigns."""
        if function not in self._bound:
            names = set(parameters(function))
            names |= {n.id for n in self.own(function, ast.Name) if isinstance(n.ctx, ast.Store)}
            names |= {f.name for f in self.own(function, ast.FunctionDef)}
            self._bound[function] = names
        return self._bound[function]

    # Names

    def name(self, node: ast.AST) -> str | None:
        """The canonical dotted name that an expression stands for through imports, such as
        ``torch.nn.functional.dropout``.
        """
        meant = self.imports.resolve(node)
        if meant is None:
            return None
        first = (dotted(node) or "").partition(".")[0]
        return None if any(first in self.bound(f) for f in self.functions_of(node)) else meant

    def called(self, node: ast.AST) -> str:
        """The canonical name of what a call calls; "" where it is unknown or no call."""
        if not isinstance(node, ast.Call):
            return ""
        if node not in self._called:
            self._called[node] = self.name(node.func) or ""
        return self._called[node]

    def assigned(self, scope: ast.AST, name: str) -> list[tuple[ast.expr, ast.stmt]]:
        """What a scope's own code assigns to a name (or ``self.x``): (value, statement). Of a tuple
        the whole value.
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
        """The expression that a local name holds at a use, one assignment back, where no branch
        lies between; else None.
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

    # Findings

    def at(self, line: int, column: int) -> int:
        """A column in characters from ast's in bytes."""
        text = self.lines[line - 1]
        return column if text.isascii() else len(text.encode()[:column].decode(errors="ignore"))

    def line(self, number: int) -> str:
        """A line of the text as people count it: "line 3", in a notebook "line 3 of cell 2"."""
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
        """An expression as the file writes it; its lines end in ``\\n``."""
        return self.between(place(node), place(node, end=True))

    def between(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        """The text between two places in ast's coordinates."""
        lines = self.lines[start[0] - 1 : end[0]]
        first, last = self.at(*start), self.at(*end)
        if len(lines) == 1:
            return lines[0][first:last]
        return "\n".join([lines[0][first:], *lines[1:-1], lines[-1][:last]])

    def source(self, node: ast.AST, most: int = 60) -> str:
        """An expression as the file writes it, in one line, cut where it is long."""
        text = " ".join(self.segment(node).split())
        return text if len(text) <= most else text[: most - 3] + "..."

    def replace(self, node: ast.expr, text: str) -> Change:
        """The change that puts a text in an expression's place."""
        (line, column), (end_line, end_column) = place(node), place(node, end=True)
        return Change(line, self.at(line, column), end_line, self.at(end_line, end_column), text)


_BARE = {"ctx", "op", "ops"}  # fields of operators, of which there is one object for the whole tree


_FIELDS = {  # in which nodes of a kind hold others
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
    """(line, column) of a node's start or end."""
    if end:
        return node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]
    return node.lineno, node.col_offset  # type: ignore[attr-defined]


def parameters(function: Function | ast.Lambda) -> list[str]:
    """A function's parameters, in order."""
    a = function.args
    return [
        p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))
    ]


def default(function: Function, name: str) -> ast.expr | None:
    """The default of a function's parameter; None where it has none."""
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
    """What a call passes for a parameter, by keyword or by place; None where it passes none."""
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
    """Whether a call passes ``*args`` or ``**kwargs``, so that what it passes is not to be seen."""
    return any(isinstance(a, ast.Starred) for a in call.args) or any(
        k.arg is None for k in call.keywords
    )


def number(node: ast.AST | None) -> float | None:
    """A literal number, else None."""
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and not isinstance(node.value, bool)
    ):
        return float(node.value)
    return None


def is_true(node: ast.AST | None) -> bool:
    """Whether it is the literal True."""
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.AST | None) -> bool:
    """Whether it is the literal False."""
    return isinstance(node, ast.Constant) and node.value is False
