"""Output that every encoding can write."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

REPLACEMENTS = {"−": "-", "–": "-", "×": "x", "λ": "lambda", "ε": "eps", "°": " deg", "…": "..."}
HANDLER = "thinned-printable"


def printable(stream: TextIO) -> None:
    """Let a stream write every character: other characters stand for those it cannot encode.

    Without it, output to a pipe or a terminal of another encoding (cp1252, Latin-1, ASCII) ends
    with UnicodeEncodeError. Characters without a replacement are written as escapes.
    """
    codecs.register_error(HANDLER, _replace)
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors=HANDLER)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    replaced = (REPLACEMENTS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text)
    return "".join(replaced), error.end
