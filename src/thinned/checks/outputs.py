"""Findings as text, JSON, SARIF 2.1.0, and GitHub workflow commands."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from .finding import Finding, Findings
from .rules import RULES, CheckRule

_LEVELS = {"error": "error", "warning": "warning", "note": "note"}
_COLORS = {"error": "31", "warning": "33", "note": "36"}


def text(found: Findings, *, color: bool = False) -> str:
    """The findings for a terminal: each place with its line and a caret; the reason of a rule with
    its first finding.
    """
    lines: list[str] = []
    explained: set[str] = set()
    for finding in found:
        severity = _painted(f"{finding.severity} {finding.code}", _COLORS[finding.severity], color)
        site = f" ({finding.site})" if finding.file and finding.site else ""
        place = _painted(where(finding), "1", color)
        lines.append(f"{place}{site}: {severity} {finding.rule.name}: {finding.message}")
        lines += _excerpt(finding, color)
        if finding.evidence:
            values = (
                f"{name} {value if isinstance(value, str) else f'{value:.4g}'}"
                for name, value in finding.evidence
            )
            lines.append("    measured: " + ", ".join(values))
        if finding.code not in explained:
            lines.append(f"    {finding.rule.why}")
        lines.append(
            f"    -> {finding.what_to_do}"
            + ("" if finding.code in explained else f"  ({finding.rule.url})")
        )
        explained.add(finding.code)
    lines += _not_checked_in_short(found)
    return "\n".join(lines if found else ["no known mistake found", *lines])


def not_checked(found: Findings) -> list[str]:
    """One line for each file or rule that was not checked, with the reason."""
    return [f"not checked: {what}: {why}" for what, why in found.unchecked]


def _not_checked_in_short(found: Findings) -> list[str]:
    """The files that were not checked, with the reasons, and all rules in one line without them."""
    codes = dict.fromkeys(what for what, _ in found.unchecked if what in RULES)
    lines = [f"not checked: {what}: {why}" for what, why in found.unchecked if what not in RULES]
    if codes:
        lines.append(f"not checked: {', '.join(codes)} (print(findings.not_checked) says why)")
    return lines


def where(finding: Finding) -> str:
    """The place of a finding: ``net.py:12:9``, ``net.ipynb:cell 3:2:5``, the name of a module, or
    "the model". Columns count from 1.
    """
    if not finding.file:
        return finding.site or "the model"
    cell = f"cell {finding.cell}:" if finding.cell is not None else ""
    column = f":{finding.column + 1}" if finding.source else ""  # a running model shows lines alone
    return f"{finding.file}:{cell}{finding.line}{column}" if finding.line else finding.file


def _painted(words: str, code: str, color: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if color else words


def _excerpt(finding: Finding, color: bool) -> list[str]:
    """The source line without its indentation, and a caret under the place."""
    if not finding.source.strip():
        return []
    indent = len(finding.source) - len(finding.source.lstrip())
    line = finding.source.strip()
    before = "".join("\t" if c == "\t" else " " for c in line[: max(0, finding.column - indent)])
    return [f"    | {line}", f"    | {before}{_painted('^', '32', color)}"]


def as_json(found: Findings) -> str:
    """All fields as JSON: ``{"version": 1, "findings": [...], "unchecked": [...]}``. Lines and
    columns count from 1.
    """
    rows = [
        {
            "code": finding.code,
            "name": finding.rule.name,
            "severity": finding.severity,
            "message": finding.message,
            "remedy": finding.what_to_do,
            "url": finding.rule.url,
            "file": finding.file or None,
            "cell": finding.cell,
            "line": finding.line or None,
            "column": finding.column + 1 if finding.line else None,
            "source": finding.source or None,
            "site": finding.site or None,
            "evidence": dict(finding.evidence),
            "fixable": bool(finding.changes),
        }
        for finding in found
    ]
    unchecked = [{"what": what, "why": why} for what, why in found.unchecked]
    return json.dumps(
        {"version": 1, "findings": rows, "unchecked": unchecked}, indent=2, ensure_ascii=False
    )


def sarif(found: Findings) -> str:
    """A SARIF 2.1.0 log for code scanning. In a notebook a region is a line of its file."""
    from .. import __version__

    codes = [code for code in RULES if code in found.codes]
    seen: Counter[str] = Counter()
    run = {
        "tool": {
            "driver": {
                "name": "thinned",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_sarif_rule(RULES[code]) for code in codes],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": line}} for line in not_checked(found)
                ],
            }
        ],
        "results": [_sarif_result(finding, codes.index(finding.code), seen) for finding in found],
    }
    schema = (
        "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    )
    return json.dumps(
        {"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False
    )


def _sarif_rule(rule: CheckRule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why} What to do: {rule.remedy}."},
        "helpUri": rule.url,
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _sarif_result(finding: Finding, index: int, seen: Counter[str]) -> dict[str, Any]:
    mark = "\n".join(
        [
            finding.code,
            PurePath(finding.file).as_posix(),
            str(finding.cell),
            finding.site,
            " ".join(finding.source.split()),
        ]
    )
    # The same line twice in a file differs by its order, not by its line number, which edits above
    # it would change.
    seen[mark] += 1
    fingerprint = hashlib.sha256(f"{mark}\n{seen[mark]}".encode()).hexdigest()[:32]
    place: dict[str, Any] = {}
    if finding.file:
        place["physicalLocation"] = {"artifactLocation": {"uri": _uri(finding.file)}}
        if finding.cell is not None:
            place["physicalLocation"]["region"] = {"startLine": max(1, finding.raw_line)}
        elif finding.line:
            place["physicalLocation"]["region"] = {
                "startLine": finding.line,
                "startColumn": finding.column + 1,
                "snippet": {"text": finding.source},
            }
    at = f"cell {finding.cell}, line {finding.line}" if finding.cell is not None else ""
    if finding.site or at:
        place["logicalLocations"] = [{"fullyQualifiedName": finding.site or at}]
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {
            "text": f"{at + ': ' if at else ''}{finding.message}. What to do: {finding.what_to_do}."
        },
        "locations": [place] if place else [],
        "partialFingerprints": {"thinned/v1": fingerprint},
    }


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def github(found: Findings) -> str:
    """Workflow commands that GitHub shows next to the lines of a pull request."""
    lines = []
    for finding in found:
        kind = {"error": "error", "warning": "warning", "note": "notice"}[finding.severity]
        properties = {"file": finding.file} if finding.file else {}
        if finding.cell is not None:
            properties["line"] = str(max(1, finding.raw_line))
        elif finding.line:
            properties |= {"line": str(finding.line), "col": str(finding.column + 1)}
        properties["title"] = f"{finding.code} {finding.rule.name}"
        at = (
            f"cell {finding.cell}, line {finding.line}: "
            if finding.cell is not None
            else f"{finding.site}: "
            if finding.site
            else ""
        )
        listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        message = f"{at}{finding.message}. What to do: {finding.what_to_do}"
        lines.append(f"::{kind} {listed}::{_data(message)}")
    lines += [
        f"::notice title=not checked::{_data(f'{what}: {why}')}" for what, why in found.unchecked
    ]
    return "\n".join(lines)


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


FORMATS: dict[str, Callable[[Findings], str]] = {
    "text": text,
    "json": as_json,
    "sarif": sarif,
    "github": github,
}
