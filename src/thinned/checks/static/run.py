"""Static checks of texts, files and folders."""

from __future__ import annotations

import contextlib
import os
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..._errors import InputError, unknown
from ..finding import Finding, Findings
from ..rules import RULES, named
from . import files, notebook, syntax
from .cache import Cache, Result
from .ignores import Ignores
from .module import Module
from .table import STATIC

# A file without any of these has nothing that a rule looks for.
_FRAMEWORK = re.compile(
    r"\b(torch|keras|tensorflow|tf_keras|jax|flax|haiku|equinox|flash_attn|trl|xformers|thinned)\b"
    r"|[lL]ightning"
)
_SUBJECT = re.compile(
    r"[dD]rop|keep_?prob|dot_product_attention|flash_attn_|preserve_rng_state|no_grad|inference_mode"
    r"|\.eval\(\)|bernoulli|p_drop|\bthinned\b"
)


def chosen(select: Collection[str] | None, ignore: Collection[str] | None = None) -> list[str]:
    """The codes of the static rules to run: ``select`` without ``ignore``.

    Args:
        select: Rules by code or name; None: all.
        ignore: Rules to leave out, by code or name.

    Returns:
        The codes in the order of the table.

    Raises:
        InputError: For an unknown rule.

    Example:
        >>> chosen(["L2", "dropout-without-training"])
        ['L1', 'L2']
    """
    wanted = {_code(name) for name in select} if select is not None else set(STATIC)
    return [code for code in STATIC if code in wanted - {_code(name) for name in ignore or ()}]


def _code(name: str) -> str:
    code = named(name)
    if code is None:
        raise unknown("rule", name, [*RULES, *(rule.name for rule in RULES.values())])
    return code


def check_source(
    text: str,
    filename: str = "<text>",
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
) -> Findings:
    """Find known mistakes in the text of a Python file or a notebook, without running it.

    Args:
        text: The source, or the JSON of a notebook.
        filename: Its name, for the findings. A name that ends in ``.ipynb`` makes it a notebook.
        select: The rules to check, by code or name, such as ``["L1", "rate-lost-in-eval"]``; None:
            all.
        ignore: The rules to leave out, by code or name.

    Returns:
        The findings, most severe first. A text that cannot be read is named in ``.unchecked``.

    Raises:
        InputError: For an unknown rule, or a text that is not a str.

    Example:
        >>> found = check_source("import torch.nn as nn\\nlayer = nn.LSTM(8, 8, dropout=0.3)")
        >>> [(f.code, f.line) for f in found]
        [('L11', 2)]
    """
    if not isinstance(text, str):
        raise InputError(
            f"text must be a str, but got {type(text).__name__}; for files use check_paths"
        )
    found, unchecked = _check(text.removeprefix("\ufeff"), str(filename), chosen(select, ignore))
    return Findings(found, unchecked)


def check_paths(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
) -> Findings:
    """Find known mistakes in files and folders of Python and notebooks, without running them.

    Folders are searched for .py, .pyw and .ipynb. Hidden folders, virtual environments, ``build``,
    ``dist``, ``node_modules`` and files of unit tests are left out of the search, but a file that
    is named is always read.

    Args:
        paths: A file or folder, or several.
        select: The rules to check, by code or name; None: all.
        ignore: The rules to leave out, by code or name.

    Returns:
        The findings, most severe first. Files that cannot be read are named in ``.unchecked``.

    Raises:
        InputError: For an unknown rule.

    Example:
        >>> check_paths("nowhere.py").unchecked
        (('nowhere.py', 'there is no such file or folder'),)
    """
    return checked(paths, select=select, ignore=ignore)[0]


def checked(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    select: Collection[str] | None = None,
    ignore: Collection[str] | None = None,
    jobs: int = 1,
    cache: bool = False,
) -> tuple[Findings, int]:
    """Like :func:`check_paths`, and count the files.

    Args:
        paths: A file or folder, or several.
        select: The rules to check, by code or name; None: all.
        ignore: The rules to leave out, by code or name.
        jobs: How many processes check files.
        cache: Whether to use the results of an earlier run for files that did not change, and to
            store those of this run, in ``$THINNED_CACHE`` or the folder of the user for caches.

    Returns:
        (findings, number of files that were read).

    Raises:
        InputError: For an unknown rule.

    Example:
        >>> checked([])
        ((), 0)
    """
    codes = chosen(select, ignore)
    found: list[Finding] = []
    unchecked: list[tuple[str, str]] = []
    read = 0
    named_paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    stored = Cache([os.fspath(p) for p in named_paths], codes) if cache else None
    todo: list[tuple[str, bool, list[str]]] = []
    keys: dict[str, str] = {}
    for path, was_named, why in files.listed(named_paths):
        if why:
            unchecked.append((str(path), why))
            continue
        known = None
        if stored is not None:
            with contextlib.suppress(OSError):  # reported when it is checked
                keys[str(path)] = stored.key(str(path), was_named, path.read_bytes())
                known = stored.get(keys[str(path)])
        if known is None:
            todo.append((str(path), was_named, codes))
            continue
        found += known[0]
        unchecked += known[1]
        read += known[2]
    for (name, _, _), result in zip(todo, _results(todo, jobs), strict=True):
        found += result[0]
        unchecked += result[1]
        read += result[2]
        if stored is not None and name in keys:
            stored.put(keys[name], result)
    if stored is not None:
        stored.write()
    return Findings(found, sorted(unchecked)), read


_MANY = 32  # fewer files are checked before another process has started


def _results(todo: list[tuple[str, bool, list[str]]], jobs: int) -> Iterable[Result]:
    if jobs < 2 or len(todo) < _MANY:
        return map(_file, todo)
    with ProcessPoolExecutor(min(jobs, len(todo))) as pool:
        return list(pool.map(_file, todo, chunksize=8))


def _file(task: tuple[str, bool, list[str]]) -> Result:
    """Check one file."""
    name, was_named, codes = task
    path = Path(name)
    try:
        raw = path.read_bytes()
        text = (
            raw.decode("utf-8-sig")
            if path.suffix == ".ipynb"
            else files.decoded(raw)[0].removeprefix("\ufeff")
        )
    except (OSError, SyntaxError, UnicodeDecodeError, LookupError) as error:
        hint = (
            ", and no coding line names another encoding"
            if _is_default(error) and path.suffix != ".ipynb"
            else ""
        )
        return [], [(name, f"cannot be read: {_reason(error)}{hint}")], False
    if not was_named and files.is_unit_test(path, text):
        return [], [], False
    found, unchecked = _check(text, name, codes)
    return found, unchecked, not any(place == name for place, _ in unchecked)


def _is_default(error: BaseException) -> bool:
    return isinstance(error, UnicodeDecodeError) and error.encoding.startswith("utf-8")


def _reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()}"
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})" if error.lineno else str(error.msg)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return " ".join(str(error).split()) or type(error).__name__


def _check(
    text: str, filename: str, codes: Collection[str]
) -> tuple[list[Finding], list[tuple[str, str]]]:
    if Path(filename).suffix == ".ipynb":
        return _check_notebook(text, filename, codes)
    return _check_python(text, filename, codes)


def _check_python(
    text: str, filename: str, codes: Collection[str], starts: Sequence[tuple[int, int]] = ()
) -> tuple[list[Finding], list[tuple[str, str]]]:
    """``starts``: of a notebook, the first line of each cell, and its number."""
    try:
        tree = notebook.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        newer = syntax.parsed(text) if isinstance(error, SyntaxError) else None
        if newer is None:
            why = syntax.explained(text, error) or f"is not Python: {_reason(error)}"
            return [], [(filename, why)]
        tree = newer
    if not (_FRAMEWORK.search(text) and _SUBJECT.search(text)):
        return [], []
    try:
        module = Module(text, filename, tree, starts)
        ignores = Ignores(module)
        if "*" in ignores.file:
            return [], []
        found = [f for code in codes for f in STATIC[code](module) if not ignores.covers(f)]
    except RecursionError:
        return [], [(filename, "is nested too deeply to be checked")]
    return found, [
        (f"{filename}, {module.line(line)}", f"ignore names an unknown rule, {name!r}")
        for line, name in ignores.unknown
    ]


def _check_notebook(
    text: str, filename: str, codes: Collection[str]
) -> tuple[list[Finding], list[tuple[str, str]]]:
    try:
        language, cells = notebook.language(text), notebook.cells(text)
    except notebook.Broken as error:
        return [], [(filename, str(error))]
    if language not in ("", "python"):
        return [], [(filename, f"is a notebook in {language}, not in Python")]
    unchecked, parts = [], []
    for cell in cells:
        code = notebook.python(cell.text)
        if code is None:
            unchecked.append((f"{filename}:cell {cell.number}", "is not Python"))
        parts.append(code if code is not None else "\n" * cell.text.count("\n"))
    starts = [1]
    for part in parts[:-1]:
        starts.append(starts[-1] + part.count("\n") + 1)
    numbers = [cell.number for cell in cells]
    found, more = _check_python(
        "\n".join(parts), filename, codes, list(zip(starts, numbers, strict=False))
    )
    placed = []
    for finding in found:
        index = bisect_right(starts, finding.line) - 1
        shift = starts[index] - 1
        changes = tuple(
            replace(c, line=c.line - shift, end_line=c.end_line - shift) for c in finding.changes
        )
        line = finding.line - shift
        raw_line = notebook.raw_line(text, cells[index], line)
        number = cells[index].number
        placed.append(replace(finding, cell=number, line=line, raw_line=raw_line, changes=changes))
    return placed, [*unchecked, *more]
