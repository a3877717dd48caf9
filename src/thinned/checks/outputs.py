"""Findings for people."""

from __future__ import annotations

from .finding import Findings


def text(found: Findings) -> str:
    """What was found, for a terminal."""
    lines = []
    for one in found:
        where = f"{one.file}:{one.line}" if one.file else one.site or "the model"
        where += f" ({one.site})" if one.file and one.site else ""
        lines.append(f"{where}: {one.severity} {one.code} {one.rule.name}: {one.message}")
        if one.source:
            lines.append(f"    {one.source.strip()}")
        lines.append(f"    {one.rule.why}")
        lines.append(f"    -> {one.what_to_do}  ({one.rule.url})")
    return "\n".join(lines) or "no known mistake found"
