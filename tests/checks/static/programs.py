"""The corpus of wrong and right programs, with the expectations in their first lines."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Program:
    """A program. ``expected``: the rules that it breaks; empty for a right program. ``source``:
    where a similar mistake was reported.
    """

    path: Path
    text: str
    expected: frozenset[str]
    source: str

    @property
    def name(self) -> str:
        return self.path.name


def programs() -> list[Program]:
    """All programs, in order of name."""
    return [_program(path) for path in sorted(FOLDER.iterdir()) if path.suffix in (".py", ".ipynb")]


def _program(path: Path) -> Program:
    text = path.read_text(encoding="utf-8")
    code = text
    if path.suffix == ".ipynb":
        code = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    expected = re.search(r"^# expect: (.+)$", code, re.M)
    source = re.search(r"^# from: (https://\S+)$", code, re.M)
    assert expected, f"{path.name} does not say what to expect"
    assert source, f"{path.name} does not say where it is from"
    codes = frozenset(expected[1].split(", ")) - {"none"}
    return Program(path, text, codes, source[1])
