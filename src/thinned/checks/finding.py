"""What a check found, as plain records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .rules import RULES, SEVERITIES, CheckRule


@dataclass(frozen=True)
class Change:
    """A replacement in a source file: lines from 1, columns from 0 in characters, the end excluded."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


@dataclass(frozen=True)
class Finding:
    """One mistake at one place.

    ``code``: the rule's, such as "L1". ``message``: what is wrong here, in one sentence, with the
    name or number that shows it. ``site``: the qualified name of the module (live). ``file``,
    ``line`` (from 1), ``column`` (from 0), ``source``: the place in the code, and its line.
    ``cell``: in a notebook, the cell, from 1 and counting all, in which ``line`` counts;
    ``raw_line``: the line of the notebook's file. ``evidence``: what was measured, as pairs of name
    and value. ``changes``: what ``--fix`` would write, where that is safe. ``remedy``: what to do
    here, where that is more exact than the rule's own.
    """

    code: str
    message: str
    site: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    source: str = ""
    cell: int | None = None
    raw_line: int = 0
    evidence: tuple[tuple[str, float | str], ...] = ()
    changes: tuple[Change, ...] = ()
    remedy: str = ""

    @property
    def rule(self) -> CheckRule:
        """The rule that was broken: why it matters, what to do, where it was met."""
        return RULES[self.code]

    @property
    def severity(self) -> str:
        """ "error": results are wrong; "warning": most likely not what was meant; "note": worth
        knowing.
        """
        return self.rule.severity

    @property
    def what_to_do(self) -> str:
        """The remedy at this place."""
        return self.remedy or self.rule.remedy


class Findings(tuple[Finding, ...]):
    """All that was found, the gravest first; empty is good. Printed, it explains itself.

    ``unchecked``: pairs of what was not checked (a rule's code or a file) and why.
    """

    unchecked: tuple[tuple[str, str], ...]

    def __new__(
        cls, found: Iterable[Finding] = (), unchecked: Iterable[tuple[str, str]] = ()
    ) -> Findings:
        ordered = sorted(
            found,
            key=lambda f: (
                SEVERITIES.index(f.severity),
                f.file,
                f.cell or 0,
                f.line,
                f.column,
                f.code,
            ),
        )
        made = super().__new__(cls, ordered)
        made.unchecked = tuple(unchecked)
        return made

    @property
    def codes(self) -> set[str]:
        """The codes of the rules that were broken."""
        return {finding.code for finding in self}

    def of(self, *codes: str) -> Findings:
        """The findings of these rules alone."""
        return Findings((f for f in self if f.code in codes), self.unchecked)

    def __str__(self) -> str:
        from .outputs import text

        return text(self)
