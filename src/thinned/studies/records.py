"""What a study leaves on disk: plain records, each written beside and renamed, so that nothing is
ever half there.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._errors import InputError

Record = dict[str, Any]
FORMAT = 1


def write(path: Path, text: str | bytes) -> None:
    """Write a file beside its place and rename it into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
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
    """What :func:`dump` wrote of numbers alone, with NaN for each null."""
    if data is None:
        return math.nan
    if isinstance(data, dict):
        return {k: numbers(v) for k, v in data.items()}
    return [numbers(v) for v in data] if isinstance(data, list) else data


def read(
    path: Path, remedy: str = "remove it", good: Callable[[Any], bool] = lambda _: True
) -> Any:
    """Read JSON. Raises :class:`thinned.InputError` where the file is missing, damaged, or its
    content not ``good``.
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
            f"{path} does not hold what this version of thinned writes there; {remedy}"
        )
    return data


HEADER = ("settings", "data", "versions", "where", "skipped", "base", "planned", "command", "began")
NETWORK = (
    "experiment",
    "fold",
    "recipe",
    "history",
    "gradients",
    "epochs",
    "best",
    "stopped",
    "diverged",
)
NUMBERS = (
    "history",
    "gradients",
    "dead",
    "gap",
    "scores",
)  # where null is a number that was not finite
COST = ("arm", "milliseconds", "kept", "state", "epochs")


def _rows(data: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(data, list) and bool(data) and all(_has(row, keys) for row in data)


def _has(data: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(data, dict) and all(k in data for k in keys)


class Store:
    """The folder of a study: ``study.json`` (settings and surroundings), ``runs/`` (a file a
    chunk), and the results.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"

    def prepare(self) -> None:
        """Make the folder. Raises :class:`thinned.InputError` where it cannot be written or has no
        room.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            write(self.folder / ".room", b"\0" * (1 << 20))
            (self.folder / ".room").unlink()
        except OSError as error:
            raise InputError(
                f"the output folder {self.folder} cannot be written: {error.strerror}; choose another with --out"
            ) from None

    @property
    def header(self) -> Path:
        return self.folder / "study.json"

    def begin(self, header: Record, resume: bool) -> Record:
        """Start a study, or go on with the one that is here; returns the header that holds.

        Raises :class:`thinned.InputError` where a study is here and ``resume`` is not asked, or its
        data or settings differ.
        """
        if not self.header.exists():
            if any(self.runs.glob("*.json")):
                raise InputError(
                    f"{self.folder} holds records without study.json, so what they are of is not known; "
                    "choose another folder with --out"
                )
            if resume:
                raise InputError(
                    f"nothing to resume: {self.header} does not exist; leave --resume out"
                )
            dump(self.header, header)
            return header
        if not resume:
            raise InputError(
                f"{self.folder} holds a study already; go on with it by --resume, or choose another folder with --out"
            )
        before = self.about()
        for part in ("settings", "data", "versions"):
            then, now = before[part], json.loads(json.dumps(_finite(header[part])))
            if then != now:
                differs = next(
                    (k for k in now if not isinstance(then, dict) or then.get(k) != now[k]), "?"
                )
                had = then.get(differs) if isinstance(then, dict) else None
                raise InputError(
                    f"{self.folder} was begun with other {part}: {differs} was {had!r} and is {now.get(differs)!r} now; "
                    "give the same again, or choose another folder with --out"
                )
        return before

    def about(self) -> Record:
        """The header. Raises :class:`thinned.InputError` where it is not one of this version."""
        return read(
            self.header,
            "choose another folder with --out",
            lambda data: _has(data, HEADER) and data.get("format") == FORMAT,
        )

    def has(self, name: str) -> bool:
        return (self.runs / f"{name}.json").exists()

    def put(self, name: str, data: Any) -> None:
        dump(self.runs / f"{name}.json", data)

    def get(self, name: str) -> Any:
        """The networks of a chunk, or ``"costs"``, or ``"ensemble"``; numbers that were not finite
        are NaN.
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
        return [row | {k: numbers(row[k]) for k in NUMBERS} for row in rows]

    def records(self) -> list[Record]:
        """Every network's record, in the order of the chunks."""
        names = sorted(p.stem for p in self.runs.glob("*.json") if p.stem.isdigit())
        return [{"chunk": name, **record} for name in names for record in self.get(name)]
