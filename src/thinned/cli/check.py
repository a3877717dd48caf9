"""``thinned check``: the known mistakes in source files and notebooks."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._errors import InputError, unknown

if TYPE_CHECKING:
    from ..checks import Findings
    from ..checks.static import Fixed


def check(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders and notebooks; - is standard input.")
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(help="Only these rules, separated by commas: L1,rate-lost-in-eval."),
    ] = None,
    ignore: Annotated[str | None, typer.Option(help="Not these rules.")] = None,
    format: Annotated[str, typer.Option(help="text, json, sarif or github.")] = "text",
    output: Annotated[str | None, typer.Option(help="Write the findings to this file.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write the changes that are safe, then check.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what --fix would write, and write nothing.")
    ] = False,
    severity: Annotated[
        str, typer.Option(help="Exit with 1 for error, warning (and error), or note (any).")
    ] = "warning",
    rules: Annotated[bool, typer.Option("--list", help="The table of rules.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With --list: as Markdown, for a document.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option(help="One rule: why, what to do, what is looked for.")
    ] = None,
) -> None:
    """Find the known mistakes with dropout in source files and notebooks, without running them.

    Exit status: 0 where nothing was found, 1 where something was, 2 for bad input or where nothing
    could be read.
    """
    try:
        if rules:
            typer.echo(_markdown() if markdown else _table())
        elif explain is not None:
            typer.echo(_explained(explain))
        else:
            raise typer.Exit(
                _check(
                    paths or [],
                    _names(select),
                    _names(ignore) or [],
                    format,
                    output,
                    fix,
                    diff,
                    severity,
                )
            )
    except (InputError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _check(
    paths: list[str],
    select: list[str] | None,
    ignore: list[str],
    form: str,
    output: str | None,
    fix: bool,
    diff: bool,
    severity: str,
) -> int:
    """The exit status."""
    from ..checks.finding import Findings
    from ..checks.outputs import FORMATS, text
    from ..checks.rules import SEVERITIES
    from ..checks.static import check_source, checked, chosen, fixed_paths

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if severity not in SEVERITIES:
        raise unknown("severity", severity, SEVERITIES)
    if not paths:
        raise InputError("name files or folders to check, such as: thinned check src")
    missing = next((p for p in paths if p != "-" and not Path(p).exists()), None)
    if missing is not None:
        raise InputError(f"there is no file or folder {missing!r}")
    if fix and diff:
        raise InputError("--fix and --diff exclude each other")
    codes = chosen(select, ignore)
    began = time.perf_counter()
    named = [p for p in paths if p != "-"]
    given = _standard_input() if "-" in paths else None
    if diff:
        return _differences(fixed_paths(named, select=codes, write=False), given, codes)
    if fix and given is not None:
        raise InputError("--fix cannot write to standard input; use --diff")
    mended = sum(done.mended for done in fixed_paths(named, select=codes)) if fix else 0
    found, read = checked(named, select=codes)
    if given is not None:
        more = check_source(given, "<stdin>", select=codes)
        read += not more.unchecked
        found = Findings([*found, *more], [*found.unchecked, *more.unchecked])
    shown = text(found, colour=_coloured(output)) if form == "text" else FORMATS[form](found)
    if form == "text" and not read:  # no word of what was found where nothing was read
        shown = "\n".join(f"not checked: {what}: {why}" for what, why in found.unchecked)
    if output is not None:
        Path(output).write_text(shown + "\n", encoding="utf-8")
    elif shown:
        typer.echo(shown)
    _summary(found, read, mended, time.perf_counter() - began)
    if not read:
        typer.echo(
            "error: nothing to check could be read; name .py or .ipynb files, or folders that hold some",
            err=True,
        )
        return 2
    return int(any(SEVERITIES.index(f.severity) <= SEVERITIES.index(severity) for f in found))


def _summary(found: Findings, read: int, mended: int, seconds: float) -> None:
    from ..checks.rules import SEVERITIES

    counts = [(sum(f.severity == s for f in found), s) for s in SEVERITIES]
    said = ", ".join(f"{n} {s}{'s' * (n != 1)}" for n, s in counts if n) or "nothing found"
    fixable = sum(bool(f.changes) for f in found)
    more = (f"; {mended} mended" if mended else "") + (
        f"; --fix would mend {fixable}" if fixable else ""
    )
    typer.echo(f"{read} file{'s' * (read != 1)} read in {seconds:.1f} s: {said}{more}", err=True)


def _names(given: str | None) -> list[str] | None:
    if given is None:
        return None
    names = [n.strip() for n in given.split(",") if n.strip()]
    if not names:
        raise InputError(
            f"rules have to be named, such as L1,L2, but got {given!r}; thinned check --list shows all"
        )
    return names


def _standard_input() -> str:
    from ..checks.static.files import decoded

    try:
        return decoded(sys.stdin.buffer.read())[0]
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise InputError(f"standard input cannot be read as Python: {error}") from None


def _coloured(output: str | None) -> bool:
    return (
        output is None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def _differences(files: Sequence[Fixed], given: str | None, codes: list[str]) -> int:
    """Show unified differences; 1 where there is one."""
    from ..checks.static import fixed_source

    pairs = [(f.file, f.before, f.after) for f in files]
    if given is not None:
        pairs.append(("<stdin>", given, fixed_source(given, "<stdin>", select=codes)[0]))
    for name, before, after in pairs:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
        for line in difflib.unified_diff(old, new, name, name):
            typer.echo(
                line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", nl=False
            )
    return int(any(before != after for _, before, after in pairs))


_SEEN = {
    "static": "source",
    "live": "a running model",
    "both": "source, a running model",
    "watch": "training",
}


def _table() -> str:
    from ..checks.rules import RULES

    rows = [(r.code, r.severity, _SEEN[r.how], r.name, r.title) for r in RULES.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    return "\n".join([*lines, "", "thinned check --explain L1 says more of one."])


def _markdown() -> str:
    from ..checks.rules import RULES

    lines = ["| rule | name | severity | seen in | what | met in |", "|---|---|---|---|---|---|"]
    for r in RULES.values():
        source = r.url.split("://")[1].removeprefix("github.com/").removeprefix("www.")
        met = (
            source.replace("/issues/", "#").replace("/pull/", "#")
            if "github.com" in r.url
            else source.split("/")[0]
        )
        lines.append(
            f"| {r.code} | {r.name} | {r.severity} | {_SEEN[r.how]} | {r.title} | [{met}]({r.url}) |"
        )
    return "\n".join(lines)


def _explained(name: str) -> str:
    """All that is known of one rule."""
    import inspect

    from ..checks.rules import RULES, named
    from ..checks.static import STATIC

    code = named(name)
    if code is None:
        raise unknown("rule", name, [*RULES, *(r.name for r in RULES.values())])
    rule = RULES[code]
    parts = [
        f"{rule.code} {rule.name} ({rule.severity}): {rule.title}",
        rule.why,
        f"What to do: {rule.remedy}.",
    ]
    if code in STATIC:
        parts.append("In source. " + " ".join((inspect.getdoc(STATIC[code]) or "").split()))
    return "\n\n".join(
        [
            *parts,
            f"Met in {rule.url}",
            f"To leave it out in one place: # thinned: ignore[{rule.code}]",
        ]
    )
