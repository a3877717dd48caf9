"""Which files are read, and their texts."""

from __future__ import annotations

import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

_SKIPPED = {"node_modules", "__pycache__", "build", "dist", "site-packages", "venv", "env"}
_SUFFIXES = (".py", ".pyw", ".ipynb")
_TEST = re.compile(r"^(test_.*|.*_test|conftest)\.py$")
_IS_TEST = re.compile(r"^\s*(async )?def test_|^\s*(import|from) (unittest|pytest)\b", re.M)


def listed(paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[Path, bool, str]]:
    """(file, whether it was named, why it cannot be read) of all files under the paths, each once,
    in order of name.
    """
    seen: set[str] = set()
    for path in map(Path, paths):
        if path.is_dir():
            for file in _walk(path):
                if _new(file, seen):
                    yield file, False, ""
        elif not path.exists():
            yield path, True, "there is no such file or folder"
        elif _new(path, seen):
            yield path, True, ""


def _new(path: Path, seen: set[str]) -> bool:
    real = os.path.realpath(path)
    if real in seen:
        return False
    seen.add(real)
    return True


def _walk(top: Path) -> Iterator[Path]:
    """The source files under a folder. Links to folders are not followed; hidden folders, build
    outputs and installed packages are left out.
    """
    for folder, inside, names in os.walk(top):
        inside[:] = sorted(d for d in inside if not _is_skipped(os.path.join(folder, d), d))
        for name in sorted(names):
            if name.endswith(_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _is_skipped(path: str, name: str) -> bool:
    return (
        name.startswith(".")
        or name in _SKIPPED
        or name.endswith(".egg-info")
        or os.path.exists(os.path.join(path, "pyvenv.cfg"))
    )


def decoded(raw: bytes) -> tuple[str, str]:
    """(text, encoding) of a Python file, by its byte-order mark or coding line, otherwise UTF-8.
    Line ends are kept.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    except SyntaxError:
        raw.decode()  # says more where that is the reason
        raise
    return raw.decode(encoding), encoding


def is_unit_test(path: Path, text: str) -> bool:
    """Whether a file contains unit tests, which make mistakes on purpose."""
    return bool(_TEST.match(path.name)) and bool(_IS_TEST.search(text))
