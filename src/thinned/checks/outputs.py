"""Findings for people and for machines: text, JSON, SARIF 2.1.0, and GitHub's workflow commands."""

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
_COLOURS = {"error": "31", "warning": "33", "note": "36"}


def text(found: Findings, *, colour: bool = False) -> str:
    """What was found, for a terminal: each place with its line and a caret; why a rule matters
    where it is met first.
    """
    lines: list[str] = []
    told: set[str] = set()
    for one in found:
        severity = _painted(f"{one.severity} {one.code}", _COLOURS[one.severity], colour)
        site = f" ({one.site})" if one.file and one.site else ""
        lines.append(
            f"{_painted(where(one), '1', colour)}{site}: {severity} {one.rule.name}: {one.message}"
        )
        lines += _pointed(one, colour)
        if one.evidence:
            lines.append(
                "    measured: "
                + ", ".join(
                    f"{n} {v if isinstance(v, str) else f'{v:.4g}'}" for n, v in one.evidence
                )
            )
        if one.code not in told:
            lines.append(f"    {one.rule.why}")
        lines.append(
            f"    -> {one.what_to_do}" + ("" if one.code in told else f"  ({one.rule.url})")
        )
        told.add(one.code)
    lines += [f"not checked: {what}: {why}" for what, why in found.unchecked]
    return "\n".join(lines if found else ["no known mistake found", *lines])


def where(one: Finding) -> str:
    """A finding's place: ``net.py:12:9``, ``net.ipynb:cell 3:2:5``, a module's name, or "the
    model". Columns count from 1.
    """
    if not one.file:
        return one.site or "the model"
    cell = f"cell {one.cell}:" if one.cell is not None else ""
    column = f":{one.column + 1}" if one.source else ""  # a running model shows lines alone
    return f"{one.file}:{cell}{one.line}{column}" if one.line else one.file


def _painted(words: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{words}\x1b[0m" if colour else words


def _pointed(one: Finding, colour: bool) -> list[str]:
    """The source line, its indentation left out, and a caret under the place."""
    if not one.source.strip():
        return []
    indent = len(one.source) - len(one.source.lstrip())
    line = one.source.strip()
    before = "".join("\t" if c == "\t" else " " for c in line[: max(0, one.column - indent)])
    return [f"    | {line}", f"    | {before}{_painted('^', '32', colour)}"]


def as_json(found: Findings) -> str:
    """All fields as JSON: ``{"version": 1, "findings": [...], "unchecked": [...]}``. Lines and
    columns count from 1.
    """
    rows = [
        {
            "code": one.code,
            "name": one.rule.name,
            "severity": one.severity,
            "message": one.message,
            "remedy": one.what_to_do,
            "url": one.rule.url,
            "file": one.file or None,
            "cell": one.cell,
            "line": one.line or None,
            "column": one.column + 1 if one.line else None,
            "source": one.source or None,
            "site": one.site or None,
            "evidence": dict(one.evidence),
            "fixable": bool(one.changes),
        }
        for one in found
    ]
    unchecked = [{"what": what, "why": why} for what, why in found.unchecked]
    return json.dumps(
        {"version": 1, "findings": rows, "unchecked": unchecked}, indent=2, ensure_ascii=False
    )


def sarif(found: Findings) -> str:
    """A SARIF 2.1.0 log, as code scanning reads it. In a notebook a region is a line of its file."""
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
                    {"level": "warning", "message": {"text": f"not checked: {what}: {why}"}}
                    for what, why in found.unchecked
                ],
            }
        ],
        "results": [_sarif_result(one, codes.index(one.code), seen) for one in found],
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


def _sarif_result(one: Finding, index: int, seen: Counter[str]) -> dict[str, Any]:
    mark = "\n".join(
        [
            one.code,
            PurePath(one.file).as_posix(),
            str(one.cell),
            one.site,
            " ".join(one.source.split()),
        ]
    )
    seen[mark] += (
        1  # the same line twice in a file: told apart by its turn, not by its number, which edits above would change
    )
    print_ = hashlib.sha256(f"{mark}\n{seen[mark]}".encode()).hexdigest()[:32]
    place: dict[str, Any] = {}
    if one.file:
        place["physicalLocation"] = {"artifactLocation": {"uri": _uri(one.file)}}
        if one.cell is not None:
            place["physicalLocation"]["region"] = {"startLine": max(1, one.raw_line)}
        elif one.line:
            place["physicalLocation"]["region"] = {
                "startLine": one.line,
                "startColumn": one.column + 1,
                "snippet": {"text": one.source},
            }
    at = f"cell {one.cell}, line {one.line}" if one.cell is not None else ""
    if one.site or at:
        place["logicalLocations"] = [{"fullyQualifiedName": one.site or at}]
    return {
        "ruleId": one.code,
        "ruleIndex": index,
        "level": _LEVELS[one.severity],
        "message": {
            "text": f"{at + ': ' if at else ''}{one.message}. What to do: {one.what_to_do}."
        },
        "locations": [place] if place else [],
        "partialFingerprints": {"thinned/v1": print_},
    }


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def github(found: Findings) -> str:
    """Workflow commands that GitHub shows beside the lines of a pull request."""
    lines = []
    for one in found:
        kind = {"error": "error", "warning": "warning", "note": "notice"}[one.severity]
        properties = {"file": one.file} if one.file else {}
        if one.cell is not None:
            properties["line"] = str(max(1, one.raw_line))
        elif one.line:
            properties |= {"line": str(one.line), "col": str(one.column + 1)}
        properties["title"] = f"{one.code} {one.rule.name}"
        at = (
            f"cell {one.cell}, line {one.line}: "
            if one.cell is not None
            else f"{one.site}: "
            if one.site
            else ""
        )
        given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        lines.append(
            f"::{kind} {given}::{_data(f'{at}{one.message}. What to do: {one.what_to_do}')}"
        )
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
