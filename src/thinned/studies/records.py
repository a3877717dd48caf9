"""The files of a study: JSON records, each written to a temporary file and renamed into place.

An interruption therefore leaves a file either complete or absent.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .._errors import InputError

Record = dict[str, Any]
LOCK = ".lock"  # a file that the running study holds
TEMPORARY = ".tmp"  # the ending of temporary files; what a kill leaves is removed at the next start
FORMAT = 4  # of the records; a folder with another one is not read


def write(path: Path, text: str | bytes) -> None:
    """Write a temporary file in the same folder and rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            # names of files that are not UTF-8 have surrogates, which JSON writes as escapes too
            file.write(text.encode("utf-8", "backslashreplace") if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def dump(path: Path, data: Any) -> None:
    """Write JSON; numbers that are not finite become null."""
    write(path, json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":")))


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {k: _finite(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(v) for v in data]
    return data


def numbers(data: Any) -> Any:
    """Nested numbers as :func:`dump` wrote them, with NaN for each null."""
    if data is None:
        return math.nan
    if isinstance(data, dict):
        return {k: numbers(v) for k, v in data.items()}
    return [numbers(v) for v in data] if isinstance(data, list) else data


def read(
    path: Path, remedy: str = "remove it", good: Callable[[Any], bool] = lambda _: True
) -> Any:
    """Read JSON.

    Raises :class:`thinned.InputError` where the file is missing or damaged, or ``good`` is False
    for its content.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; is {path.parent} the folder of a study?"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); {remedy}") from None
    if not good(data):
        raise InputError(
            f"{path} does not have the content that this version of thinned writes; {remedy}"
        )
    return data


HEADER = (
    "settings",
    "data",
    "model",
    "versions",
    "measure",
    "methods",
    "constant",
    "where",
    "skipped",
    "base",
    "planned",
    "command",
    "began",
)
NETWORK = (
    "experiment",
    "fold",
    "recipe",
    "history",
    "gradients",
    "epochs",
    "best_epoch",
    "stopped_early",
    "diverged",
)
# the keys under which null stands for a number that was not finite
NUMBERS = ("history", "gradients", "dead_units", "gap", "scores")
COST = ("method", "milliseconds", "activation_bytes", "state_bytes", "best_epoch")


def _rows(data: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(data, list) and bool(data) and all(_has(row, keys) for row in data)


def _has(data: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(data, dict) and all(k in data for k in keys)


class StudyFolder:
    """The folder of a study.

    It has ``study.json`` (settings, data and versions: the header), ``runs/`` (one file of records
    for each chunk) and the results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and hold it for this process during the block.

        The lock ends with the process, however it ends. Temporary files of a process that was
        killed are removed. Raises :class:`thinned.InputError` where another process holds the
        folder, it cannot be written, or the disk is full.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK, timeout=0)
            lock.acquire()
        except Timeout:
            raise InputError(
                f"another study is running in {self.folder}; wait until it has ended, or choose "
                "another folder with --out"
            ) from None
        except OSError as error:
            raise self._not_writable(error) from None
        try:
            for folder in (self.folder, self.runs):
                for path in folder.glob(f".*{TEMPORARY}"):
                    path.unlink(missing_ok=True)
            self.prepare()
            yield
        finally:
            lock.release()

    def _not_writable(self, error: OSError) -> InputError:
        return InputError(
            f"the output folder {self.folder} cannot be written: {error.strerror}; choose another "
            "with --out"
        )

    def prepare(self) -> None:
        """Create the folder.

        Raises :class:`thinned.InputError` where it cannot be written or the disk is full.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            write(self.folder / ".write-test", b"\0" * (1 << 20))
            (self.folder / ".write-test").unlink()
        except OSError as error:
            raise self._not_writable(error) from None

    @property
    def header(self) -> Path:
        """The path of the header."""
        return self.folder / "study.json"

    def begin(self, header: Record, resume: bool) -> Record:
        """Start a study or continue the one in the folder; returns the header in force.

        Raises :class:`thinned.InputError` where there is a study and ``resume`` is False, or its
        settings, data or versions differ.
        """
        if not self.header.exists():
            if any(self.runs.glob("*.json")):
                raise InputError(
                    f"{self.folder} holds records without study.json, so their settings are not "
                    "known; choose another folder with --out"
                )
            if resume:
                raise InputError(
                    f"nothing to resume: {self.header} does not exist; leave out --resume"
                )
            dump(self.header, header)
            return header
        before = self.read_header()
        if not resume:
            raise InputError(
                f"{self.folder} already holds a study; continue it with --resume, or choose "
                "another folder with --out"
            )
        for part in ("settings", "data", "model", "versions"):
            old, new = before[part], json.loads(json.dumps(_finite(header[part])))
            if old != new:
                differs = next(
                    (k for k in new if not isinstance(old, dict) or old.get(k) != new[k]), "?"
                )
                old_value = old.get(differs) if isinstance(old, dict) else None
                raise InputError(
                    f"{self.folder} was started with other {part}: {differs} was {old_value!r} and "
                    f"is now {new.get(differs)!r}; use the same again, or choose another folder "
                    "with --out"
                )
        return before

    def read_header(self) -> Record:
        """The header.

        Raises :class:`thinned.InputError` where it is missing, damaged or of another format.
        """
        remedy = "choose another folder with --out"
        header = read(self.header, remedy, lambda data: _has(data, ("format",)))
        if header["format"] != FORMAT:
            raise InputError(
                f"{self.header} was written in format {header['format']}, but this version of "
                f"thinned reads format {FORMAT}; run the study again in another folder with --out, "
                "or read it with the version of thinned that wrote it"
            )
        return read(self.header, remedy, lambda data: _has(data, HEADER))

    def has(self, name: str) -> bool:
        """Whether there are records of a chunk, or of "costs" or "ensemble"."""
        return (self.runs / f"{name}.json").exists()

    def put(self, name: str, data: Any) -> None:
        """Write the records of a chunk, or of "costs" or "ensemble"."""
        dump(self.runs / f"{name}.json", data)

    def get(self, name: str) -> Any:
        """Read the records of a chunk, or of "costs" or "ensemble".

        Numbers that were not finite are NaN.
        """
        remedy = "remove it and run the study again with --resume"
        path = self.runs / f"{name}.json"
        if name == "ensemble":
            return numbers(
                read(path, remedy, lambda data: _has(data, ("curve", "exact", "animation")))
            )
        if name == "costs":
            return read(path, remedy, lambda data: _rows(data, COST))
        rows = read(path, remedy, lambda data: _rows(data, (*NETWORK, *NUMBERS)))
        keys = (*NUMBERS, "against_constant")
        return [row | {k: numbers(row[k]) for k in keys if k in row} for row in rows]

    def records(self) -> list[Record]:
        """The records of all networks, in the order of the chunks."""
        names = sorted(p.stem for p in self.runs.glob("*.json") if p.stem.isdigit())
        return [{"chunk": name, **record} for name in names for record in self.get(name)]
