"""Notebooks: their code cells as one text, and new texts of cells written back without touching any
other byte.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
# cell magics that run their cell as Python
_PYTHON_MAGICS = {"time", "timeit", "capture", "prun", "debug"}
_ASSIGNED = re.compile(r"^(\s*)([\w.,\s*()\[\]]+?)=\s*[!%](?!=)")
_MAGIC = re.compile(r"^(\s*)(?:[%!]|\?{1,2}\s*\w|[\w.]+\?{1,2}\s*$)")


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Args:
        number: Its place in the notebook, from 1, counting all cells.
        text: Its source.
        pieces: The spans of its strings in the file.
    """

    number: int
    text: str
    pieces: tuple[tuple[int, int], ...]


class Broken(ValueError):
    """A file that is not a valid notebook."""


def cells(raw: str) -> list[Cell]:
    """The code cells of a notebook's JSON."""
    try:
        pairs = json.loads(raw, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise Broken(f"not valid JSON ({error})") from None
    spans = iter(m.span() for m in _STRING.finditer(raw))
    root = _place(pairs, spans)
    if not isinstance(root, dict):
        raise Broken("not a notebook: the JSON is not an object")
    listed = root.get("cells")
    if listed is None and isinstance(root.get("worksheets"), list):
        listed = [
            c
            for sheet in root["worksheets"]
            if isinstance(sheet, dict)
            for c in sheet.get("cells", [])
        ]
    if not isinstance(listed, list):
        raise Broken("not a notebook: it has no list of cells")
    found = []
    for number, cell in enumerate(listed, 1):
        if isinstance(cell, dict) and _is_code(cell.get("cell_type")):
            source = cell.get("source", cell.get("input", []))
            parts = source if isinstance(source, list) else [source]
            texts = [p for p in parts if isinstance(p, _Text)]
            if len(texts) == len(parts):
                found.append(
                    Cell(number, "".join(p.value for p in texts), tuple(p.span for p in texts))
                )
    return found


def language(raw: str) -> str:
    """The language of a notebook in lower case, by its metadata; "" where they do not say."""
    try:
        root = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Broken(f"not valid JSON ({error})") from None
    metadata = root.get("metadata") if isinstance(root, dict) else None
    for part, field in (("language_info", "name"), ("kernelspec", "language")):
        inside = metadata.get(part) if isinstance(metadata, dict) else None
        name = inside.get(field) if isinstance(inside, dict) else None
        if isinstance(name, str) and name.strip():
            name = name.strip().lower()
            return "python" if name.startswith(("python", "ipython")) else name
    return ""


def raw_line(raw: str, cell: Cell, line: int) -> int:
    """The line of the notebook's file that holds a line of a cell."""
    start = 0
    for start, end in cell.pieces:
        line -= json.loads(raw[start:end]).count("\n")
        if line < 1:
            break
    return raw.count("\n", 0, start) + 1


def _is_code(kind: Any) -> bool:
    return isinstance(kind, _Text) and kind.value == "code"


class _Pairs(list[tuple[str, Any]]):
    """An object, with its keys in the order of the file."""


@dataclass(frozen=True)
class _Text:
    value: str
    span: tuple[int, int]


def _place(node: Any, spans: Iterator[tuple[int, int]]) -> Any:
    """The same data with the span of each string in the file; strings are in file order."""
    if isinstance(node, _Pairs):
        out = {}
        for key, value in node:
            next(spans)
            out[key] = _place(value, spans)
        return out
    if isinstance(node, list):
        return [_place(value, spans) for value in node]
    return _Text(node, next(spans)) if isinstance(node, str) else node


def with_cells(raw: str, texts: dict[int, str]) -> str:
    """The notebook with new texts for some cells, by number. Unchanged lines of a cell keep their
    places in its list of strings.
    """
    edits: list[tuple[int, int, str]] = []
    for cell in cells(raw):
        if cell.number not in texts:
            continue
        old = [json.loads(raw[a:b]) for a, b in cell.pieces]
        for (a, b), before, after in zip(
            cell.pieces, old, _split(old, texts[cell.number]), strict=True
        ):
            if before != after:
                edits.append((a, b, json.dumps(after, ensure_ascii=raw.isascii())))
    for a, b, text in sorted(edits, reverse=True):
        raw = raw[:a] + text + raw[b:]
    return raw


def _split(old: list[str], new: str) -> list[str]:
    """A new text cut into as many strings as the old text: equal strings at the start and the end
    keep their places.
    """
    if len(old) == 1:
        return [new]
    lines = new.splitlines(keepends=True)
    if len(lines) == len(old):
        return lines
    head = 0
    while head < len(old) - 1 and new.startswith(old[head]):
        new, head = new[len(old[head]) :], head + 1
    tail = len(old)
    while tail > head + 1 and new.endswith(old[tail - 1]):
        new, tail = new[: len(new) - len(old[tail - 1])], tail - 1
    return [*old[:head], new, *[""] * (tail - head - 1), *old[tail:]]


def python(cell: str) -> str | None:
    """A cell as Python with the same number of lines: magics and shell lines become ``pass``. None
    where the rest is not Python.
    """
    lines = cell.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is not None and lines[first].lstrip().startswith("%%"):
        name = lines[first].strip()[2:].split()[:1]
        if not name or name[0] not in _PYTHON_MAGICS:
            return "\n" * (len(lines) - 1)
        lines[first] = ""
    if not parses("\n".join(lines)):
        continues = False
        for i, line in enumerate(lines):
            magic, assigned = _MAGIC.match(line), _ASSIGNED.match(line)
            if continues:
                lines[i] = ""
                continues = line.rstrip().endswith("\\")
                continue
            if magic:
                lines[i] = magic[1] + "pass"
            elif assigned:
                lines[i] = f"{assigned[1]}{assigned[2].strip()} = None"
            continues = bool(magic or assigned) and line.rstrip().endswith("\\")
    text = "\n".join(lines)
    return text if parses(text) else None


def parses(text: str) -> bool:
    """Whether a cell is Python."""
    try:
        parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def parse(text: str) -> ast.Module:
    """The tree of a text. ``await`` is allowed at the top level, as in notebooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = compile(
            text,
            "<text>",
            "exec",
            ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
    assert isinstance(tree, ast.Module)
    return tree
