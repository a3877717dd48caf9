"""Applies the safe changes that findings propose."""

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
    """A file before and after the safe changes.

    Args:
        file: Its path.
        before: Its text before.
        after: Its text after.
        fixed: How many findings were fixed.

    Example:
        >>> Fixed("net.py", "F.dropout(x)", "F.dropout(x, training=self.training)", fixed=1).fixed
        1
    """

    file: str
    before: str
    after: str
    fixed: int


def fixed_source(
    text: str,
    filename: str = "<text>",
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
) -> tuple[str, int]:
    """Apply all safe changes to a text; a second call changes nothing.

    The rest of the text is kept, with its line ends; in the JSON of a notebook only the changed
    strings are replaced. A change that would leave a text that does not parse is skipped.

    Args:
        text: The source of a Python file, or the JSON of a notebook.
        filename: Its name, for messages; a notebook ends in ``.ipynb``.
        select: The rules to fix, by code or name; None: all.
        ignore: The rules to leave out, by code or name.

    Returns:
        (the new text, how many findings were fixed).

    Raises:
        InputError: For an unknown rule.

    Example:
        >>> text = "import keras\\nkeep_prob = 0.9\\nlayer = keras.layers.Dropout(keep_prob)"
        >>> fixed_source(text)
        ('import keras\\nkeep_prob = 0.9\\nlayer = keras.layers.Dropout(1 - keep_prob)', 1)
    """
    count = 0
    for _ in range(10):  # a change may have overlapped another, which then applies in the next pass
        found = [f for f in check_source(text, filename, select=select, ignore=ignore) if f.changes]
        before = text
        for finding in reversed(_apart(found)):
            changed = _applied(text, finding)
            if changed != text and _reads(changed, filename):
                text, count = changed, count + 1
        if text == before:
            break
    return text, count


def fixed_paths(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
    write: bool = True,
) -> list[Fixed]:
    """Apply all safe changes to files and folders.

    A new file is written next to the old one and then renamed, so that no file is ever half
    written; encoding, line ends and permissions are kept.

    Args:
        paths: Files and folders; see :func:`check_paths`.
        select: The rules to fix, by code or name; None: all.
        ignore: The rules to leave out, by code or name.
        write: Whether to write the files.

    Returns:
        The files that changed, in order of name.

    Raises:
        InputError: For an unknown rule.

    Example:
        >>> fixed_paths([], write=False)
        []
    """
    found = check_paths(paths, select=select, ignore=ignore)
    changed = []
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
        after, count = fixed_source(before, name, select=select, ignore=ignore)
        if after == before or before.encode(encoding) != raw:
            continue
        changed.append(Fixed(name, before, after, count))
        if write:
            _write(Path(os.path.realpath(name)), after.encode(encoding))
    return changed


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _apart(found: Sequence[Finding]) -> list[Finding]:
    """The findings in text order, without those with changes that overlap earlier changes."""

    def span(finding: Finding) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        cell = finding.cell or 0
        return (
            min((cell, c.line, c.column) for c in finding.changes),
            max((cell, c.end_line, c.end_column) for c in finding.changes),
        )

    separate: list[Finding] = []
    for finding in sorted(found, key=span):
        if not separate or span(finding)[0] >= span(separate[-1])[1]:
            separate.append(finding)
    return separate


def _applied(text: str, finding: Finding) -> str:
    if finding.cell is None:
        return applied(text, finding.changes)
    cell = next(c for c in notebook.cells(text) if c.number == finding.cell)
    return notebook.with_cells(text, {cell.number: applied(cell.text, finding.changes)})


def applied(text: str, changes: Iterable[Change]) -> str:
    """A text with changes applied."""
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
