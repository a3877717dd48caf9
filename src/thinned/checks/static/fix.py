"""Writes the changes that findings propose, where that is safe."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..finding import Change, Finding
from . import files, notebook
from .run import check_paths, check_source

_ENDS = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Fixed:
    """A file before and after, and the findings that were mended."""

    file: str
    before: str
    after: str
    mended: int


def fixed_source(
    text: str,
    filename: str = "<text>",
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
) -> tuple[str, int]:
    """(the text with all safe changes made, how many findings that mended). A second time it
    changes nothing.

    All else stays as it is, with line ends; a notebook's JSON is touched in the changed strings
    alone. A change after which the text would not parse is left out.
    """
    mended = 0
    for _ in range(10):  # a change may have made room for one that overlapped it
        found = [f for f in check_source(text, filename, select=select, ignore=ignore) if f.changes]
        before = text
        for one in reversed(_apart(found)):
            changed = _applied(text, one, filename)
            if changed != text and _reads(changed, filename):
                text, mended = changed, mended + 1
        if text == before:
            break
    return text, mended


def fixed_paths(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
    write: bool = True,
) -> list[Fixed]:
    """Make all safe changes in files and folders; what was changed. ``write=False`` writes nothing.

    A file is written beside itself and renamed, so that it is never half there; its encoding, line
    ends and permissions stay.
    """
    found = check_paths(paths, select=select, ignore=ignore)
    out = []
    for name in dict.fromkeys(f.file for f in found if f.changes):
        raw = Path(name).read_bytes()
        encoding = (
            "utf-8-sig"
            if raw.startswith(b"\xef\xbb\xbf")
            else "utf-8"
            if name.endswith(".ipynb")
            else files.decoded(raw)[1]
        )
        before = raw.decode(encoding)
        after, mended = fixed_source(before, name, select=select, ignore=ignore)
        if after == before or before.encode(encoding) != raw:
            continue
        out.append(Fixed(name, before, after, mended))
        if write:
            _write(Path(os.path.realpath(name)), after.encode(encoding))
    return out


def _write(path: Path, data: bytes) -> None:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        shutil.copymode(path, beside)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _apart(found: Sequence[Finding]) -> list[Finding]:
    """The findings in the order of the text without those whose changes overlap an earlier one's."""

    def span(one: Finding) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        cell = one.cell or 0
        return (
            min((cell, c.line, c.column) for c in one.changes),
            max((cell, c.end_line, c.end_column) for c in one.changes),
        )

    out: list[Finding] = []
    for one in sorted(found, key=span):
        if not out or span(one)[0] >= span(out[-1])[1]:
            out.append(one)
    return out


def _applied(text: str, one: Finding, filename: str) -> str:
    if one.cell is None:
        return applied(text, one.changes)
    cell = next(c for c in notebook.cells(text) if c.number == one.cell)
    return notebook.with_cells(text, {cell.number: applied(cell.text, one.changes)})


def applied(text: str, changes: Iterable[Change]) -> str:
    """A text with changes made."""
    starts = [0, *(m.end() for m in _ENDS.finditer(text))]
    for change in sorted(changes, key=lambda c: (c.line, c.column), reverse=True):
        first, last = (
            starts[change.line - 1] + change.column,
            starts[change.end_line - 1] + change.end_column,
        )
        text = text[:first] + change.text + text[last:]
    return text


def _reads(text: str, filename: str) -> bool:
    """Whether a changed text still parses, all its cells in a notebook."""
    if not filename.endswith(".ipynb"):
        return notebook.parses(text)
    try:
        return all(notebook.python(c.text) is not None for c in notebook.cells(text))
    except notebook.Broken:
        return False
