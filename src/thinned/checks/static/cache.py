"""Results of earlier checks, by the content of files and the version of the rules."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ..finding import Change, Finding

# (findings, what was not checked, whether the file counts as read)
Result = tuple[list[Finding], list[tuple[str, str]], bool]


@cache
def version() -> str:
    """A hash of the sources of all rules and of the version of Python, which parses."""
    digest = hashlib.sha256(repr(sys.version_info).encode())
    folder = Path(__file__).parent
    for path in [*sorted(folder.glob("*.py")), *sorted(folder.parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def folder() -> Path:
    """``$THINNED_CACHE``, or ``thinned`` in the folder of the user for caches."""
    own = os.environ.get("THINNED_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thinned"


class Cache:
    """The results of one set of paths and rules, in one JSON file that each run writes again with
    the files of that run only. A file that is missing, broken or of other rules counts as empty.
    """

    def __init__(self, paths: Iterable[str], codes: Collection[str]) -> None:
        name = repr((sorted(os.path.abspath(p) for p in paths), sorted(codes)))
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
        self.path = folder() / f"checks-{digest[:24]}.json"
        self._old: dict[str, Any] = {}
        self._new: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(stored, dict) and stored.get("version") == version():
                self._old = stored["files"]

    @staticmethod
    def key(path: str, was_named: bool, raw: bytes) -> str:
        """The key of a file: its name, which findings repeat, and its content."""
        head = repr((path, was_named)).encode(errors="surrogateescape")
        return hashlib.sha256(head + b"\0" + raw).hexdigest()

    def get(self, key: str) -> Result | None:
        """The result that is stored for a key."""
        stored = self._old.get(key)
        if stored is None:
            return None
        self._new[key] = stored
        found, unchecked, read = stored
        return [_finding(f) for f in found], [(a, b) for a, b in unchecked], read

    def put(self, key: str, result: Result) -> None:
        """Store a result."""
        found, unchecked, read = result
        self._new[key] = [[asdict(f) for f in found], unchecked, read]

    def write(self) -> None:
        """Write the file, where anything changed. A folder that cannot be written is left alone:
        the next run then checks again.
        """
        if self._new == self._old:
            return
        with contextlib.suppress(OSError, UnicodeEncodeError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"version": version(), "files": self._new})
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".checks-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(temporary, self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise


def _finding(stored: dict[str, Any]) -> Finding:
    fields = {k: v for k, v in stored.items() if k != "_"}
    fields["changes"] = tuple(Change(**c) for c in stored["changes"])
    fields["evidence"] = tuple((a, b) for a, b in stored["evidence"])
    return Finding(**fields)
