"""Changes to source that rules propose."""

from __future__ import annotations

import ast

from ..finding import Change
from .module import Module, place


def _offset(module: Module, line: int, column: int) -> tuple[int, int]:
    return line, module.at(line, column)


def _arguments(call: ast.Call) -> list[ast.AST]:
    return sorted([*call.args, *call.keywords], key=place)


def added(module: Module, call: ast.Call, text: str) -> tuple[Change, ...]:
    """The change that adds a keyword argument at the end of a call; none where a bracket follows
    the last argument.
    """
    arguments = _arguments(call)
    if not arguments or isinstance(arguments[-1], ast.GeneratorExp):
        return ()
    end = place(arguments[-1], end=True)
    tail = module.between(end, place(call, end=True))
    if tail.strip(", \t\r\n") != ")":
        return ()
    line, column = _offset(module, *end)
    return (Change(line, column, line, column, f", {text}"),)


def removed(module: Module, call: ast.Call, keyword: ast.keyword) -> tuple[Change, ...]:
    """The change that removes a keyword argument with one of its commas; none where brackets or
    comments are next to it.
    """
    arguments = _arguments(call)
    index = arguments.index(keyword)
    start, end = place(keyword), place(keyword, end=True)
    if index > 0:
        start = place(arguments[index - 1], end=True)
        between = module.between(start, place(keyword))
    elif len(arguments) > 1:
        end = place(arguments[1])
        between = module.between(place(keyword, end=True), end)
    else:
        between = ","
    if between.strip() != ",":
        return ()
    return (Change(*_offset(module, *start), *_offset(module, *end), ""),)
