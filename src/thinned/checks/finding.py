"""Findings of checks, as records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

from .rules import RULES, SEVERITIES, CheckRule


@dataclass(frozen=True)
class Change:
    """A replacement in a source file.

    Args:
        line: The first line, from 1.
        column: The first column, from 0, in characters.
        end_line: The last line, from 1.
        end_column: The column after the last character.
        text: The new text.

    Example:
        >>> Change(line=3, column=4, end_line=3, end_column=9, text="drop").text
        'drop'
    """

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


@dataclass(frozen=True)
class Finding:
    """A known mistake at one place.

    Args:
        code: The code of the rule, such as "L1".
        message: What is wrong here, in one sentence, with the name or number that shows it.
        site: The qualified name of the module in a running model; "" in source.
        file: The file; "" where it is unknown.
        line: The line, from 1, in a notebook within its cell; 0 where it is unknown.
        column: The column, from 0, in characters.
        source: The text of the line.
        cell: In a notebook, the number of the cell, from 1, counting all cells.
        raw_line: In a notebook, the line of the file.
        evidence: Measurements, as pairs of name and value.
        changes: The changes that ``thinned check --fix`` would write; empty where none is safe.
        remedy: What to do here, where that is more exact than the remedy of the rule.

    Example:
        >>> finding = Finding("L1", "F.dropout is called without training=", file="net.py", line=7)
        >>> finding.severity, finding.rule.name
        ('error', 'dropout-without-training')
    """

    code: str
    message: str
    site: str = ""
    _: KW_ONLY
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
        """The rule that is broken: why it matters, what to do, where the mistake was reported."""
        return RULES[self.code]

    @property
    def severity(self) -> str:
        """ "error": results are wrong; "warning": most likely unintended; "note": worth knowing."""
        return self.rule.severity

    @property
    def what_to_do(self) -> str:
        """The remedy at this place: its own, or that of the rule."""
        return self.remedy or self.rule.remedy


class Findings(tuple[Finding, ...]):
    """The findings of a check, most severe first; empty where no known mistake was found.

    Printed, the findings explain themselves.

    Args:
        found: The findings, in any order.
        unchecked: Pairs (rule code or file, reason) of what was not checked.

    Example:
        >>> findings = Findings([Finding("L5", "dropout precedes"), Finding("L1", "no training=")])
        >>> [f.code for f in findings]
        ['L1', 'L5']
        >>> print(Findings())
        no known mistake found
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
        findings = super().__new__(cls, ordered)
        findings.unchecked = tuple(unchecked)
        return findings

    @property
    def codes(self) -> set[str]:
        """The codes of the rules that are broken."""
        return {finding.code for finding in self}

    def of(self, *codes: str) -> Findings:
        """The findings of these rules only."""
        return Findings((f for f in self if f.code in codes), self.unchecked)

    @property
    def not_checked(self) -> str:
        """What was not checked, one line each, with the reasons."""
        from .outputs import not_checked

        return "\n".join(not_checked(self))

    def __str__(self) -> str:
        from .outputs import text

        return text(self)
