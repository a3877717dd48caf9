"""``# thinned: ignore``, ``# thinned: ignore[L1, dropout-without-training]`` and ``# thinned:
ignore-file[...]``.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize

from .. import rules
from ..finding import Finding
from .module import Module, place

_COMMENT = re.compile(r"#\s*thinned:\s*ignore(?P<file>-file)?\s*(\[(?P<names>[^\]]*)\])?", re.I)
_ALL = frozenset({"*"})


class Ignores:
    """The findings that the comments of a file ask to leave out. ``unknown``: pairs of a line and
    an unknown rule name on it.
    """

    def __init__(self, module: Module) -> None:
        self.file: frozenset[str] = frozenset()
        self.lines: dict[int, frozenset[str]] = {}
        self.unknown: list[tuple[int, str]] = []
        self._module = module
        if not re.search(r"thinned:\s*ignore", module.text, re.I):
            return
        for line, comment in _comments(module.text):
            for match in _COMMENT.finditer(comment):
                codes = self._codes(match["names"], line)
                if match["file"]:
                    self.file |= codes
                else:
                    self.lines[line] = self.lines.get(line, frozenset()) | codes

    def _codes(self, names: str | None, line: int) -> frozenset[str]:
        if names is None:
            return _ALL
        listed = [n.strip() for n in names.split(",") if n.strip()]
        self.unknown += [(line, n) for n in listed if rules.named(n) is None]
        return frozenset(code for n in listed if (code := rules.named(n)))

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is to be left out. Its ``line`` counts in the module's text."""
        if self.file & {"*", finding.code}:
            return True
        if not self.lines:
            return False
        first, last = _statement(self._module.tree, finding.line)
        return any(
            codes & {"*", finding.code}
            for line, codes in self.lines.items()
            if first <= line <= last
        )


def _comments(text: str) -> list[tuple[int, str]]:
    """(line, comment) of each comment in a text; strings that look like one are not comments."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text, newline="").readline))
    except (
        tokenize.TokenError,
        SyntaxError,
        IndentationError,
    ):  # ast accepts a few texts that tokenize does not
        return [
            (i, line[line.index("#") :])
            for i, line in enumerate(re.split(r"\r\n|\r|\n", text), 1)
            if "#" in line
        ]
    return [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]


def _statement(tree: ast.Module, line: int) -> tuple[int, int]:
    """The lines of the smallest statement around a line; of a statement with a body, its head."""
    first = last = line
    best: tuple[int, int] | None = None
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt):
            continue
        start, end = node.lineno, place(node, end=True)[0]
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        if isinstance(body, list) and body:
            inner = body[0].lineno if isinstance(body[0], ast.stmt) else start + 1
            end = max(start, inner - 1)
        if start <= line <= end and (best is None or end - start < best[1] - best[0]):
            best = start, end
    return best or (first, last)
