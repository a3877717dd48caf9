"""``thinned check``: known mistakes with dropout in source files and notebooks."""

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
        list[str] | None,
        typer.Argument(help="Files, folders and notebooks; - reads standard input."),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(help="Check only these rules: L1,rate-lost-in-eval."),
    ] = None,
    ignore: Annotated[str | None, typer.Option(help="Leave out these rules.")] = None,
    format: Annotated[str, typer.Option(help="text, json, sarif or github.")] = "text",
    output: Annotated[str | None, typer.Option(help="Write the findings to this file.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Apply the safe changes, then check.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show the changes of --fix without writing them.")
    ] = False,
    severity: Annotated[
        str, typer.Option(help="Exit with 1 from this severity: error, warning or note.")
    ] = "warning",
    jobs: Annotated[int, typer.Option(help="Processes that check files; 0: one per core.")] = 0,
    cache: Annotated[
        bool, typer.Option(help="Use the results of an earlier run for files that did not change.")
    ] = True,
    rules: Annotated[bool, typer.Option("--list", help="Show the table of rules.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With --list: show it as Markdown.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option(help="Explain one rule: why, what to do, how it is found.")
    ] = None,
) -> None:
    """Find known mistakes with dropout in source files and notebooks, without running them.

    Exit status: 0 where no mistake was found, 1 where one was found, 2 for bad input or where no
    file could be read.
    """
    try:
        if rules:
            typer.echo(rules_as_markdown() if markdown else _table())
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
                    jobs,
                    cache,
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
    jobs: int,
    cache: bool,
) -> int:
    """The exit status."""
    from ..checks.finding import Findings
    from ..checks.outputs import FORMATS, not_checked, text
    from ..checks.rules import SEVERITIES
    from ..checks.static import check_source, checked, chosen, fixed_paths

    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if severity not in SEVERITIES:
        raise unknown("severity", severity, SEVERITIES)
    if not paths:
        raise InputError("no paths to check; name files or folders, for example: thinned check src")
    missing = next((p for p in paths if p != "-" and not Path(p).exists()), None)
    if missing is not None:
        raise InputError(f"there is no file or folder {missing!r}")
    if fix and diff:
        raise InputError("--fix and --diff exclude each other; --diff writes nothing")
    codes = chosen(select, ignore)
    began = time.perf_counter()
    named = [p for p in paths if p != "-"]
    piped = _standard_input() if "-" in paths else None
    if diff:
        return _differences(fixed_paths(named, select=codes, write=False), piped, codes)
    if fix and piped is not None:
        raise InputError("--fix cannot write to standard input; use --diff")
    fixed = sum(file.fixed for file in fixed_paths(named, select=codes)) if fix else 0
    if jobs < 0:
        raise InputError(f"--jobs must be 0 (one per core) or more, but got {jobs}")
    found, read = checked(named, select=codes, jobs=jobs or os.cpu_count() or 1, cache=cache)
    if piped is not None:
        more = check_source(piped, "<stdin>", select=codes)
        read += not more.unchecked
        found = Findings([*found, *more], [*found.unchecked, *more.unchecked])
    report = text(found, color=_has_color(output)) if form == "text" else FORMATS[form](found)
    if form == "text" and not read:  # "no known mistake found" would mislead
        report = "\n".join(not_checked(found))
    if output is not None:
        Path(output).write_text(report + "\n", encoding="utf-8")
    elif report:
        typer.echo(report)
    _summary(found, read, fixed, time.perf_counter() - began)
    if not read:
        typer.echo(
            "error: no file could be read; name .py or .ipynb files, or folders that contain some",
            err=True,
        )
        return 2
    return int(any(SEVERITIES.index(f.severity) <= SEVERITIES.index(severity) for f in found))


def _summary(found: Findings, read: int, fixed: int, seconds: float) -> None:
    from ..checks.rules import SEVERITIES

    counts = [(sum(f.severity == s for f in found), s) for s in SEVERITIES]
    total = ", ".join(f"{n} {s}{'s' * (n != 1)}" for n, s in counts if n) or "no known mistake"
    fixable = sum(bool(f.changes) for f in found)
    total += f" ({fixable} fixable with --fix)" if fixable else ""
    total += f"; {fixed} fixed" if fixed else ""
    typer.echo(f"{read} file{'s' * (read != 1)} read in {seconds:.1f} s: {total}", err=True)


def _names(listed: str | None) -> list[str] | None:
    if listed is None:
        return None
    names = [n.strip() for n in listed.split(",") if n.strip()]
    if not names:
        raise InputError(
            f"expected rules separated by commas, such as L1,L2, but got {listed!r}; "
            "thinned check --list shows all"
        )
    return names


def _standard_input() -> str:
    from ..checks.static.files import decoded

    try:
        return decoded(sys.stdin.buffer.read())[0]
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise InputError(f"standard input cannot be read as Python: {error}") from None


def _has_color(output: str | None) -> bool:
    return (
        output is None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def _differences(files: Sequence[Fixed], piped: str | None, codes: list[str]) -> int:
    """Show unified differences; 1 where there is any, otherwise 0."""
    from ..checks.static import fixed_source

    pairs = [(f.file, f.before, f.after) for f in files]
    if piped is not None:
        pairs.append(("<stdin>", piped, fixed_source(piped, "<stdin>", select=codes)[0]))
    for name, before, after in pairs:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
        for line in difflib.unified_diff(old, new, name, name):
            typer.echo(
                line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n", nl=False
            )
    return int(any(before != after for _, before, after in pairs))


_FOUND_IN = {
    "static": "source",
    "live": "a running model",
    "both": "source, a running model",
    "watch": "training",
}


def _table() -> str:
    """The table of rules, for a terminal."""
    from ..checks.rules import RULES

    rows = [(r.code, r.severity, _FOUND_IN[r.how], r.name, r.title) for r in RULES.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([*(text.ljust(w) for text, w in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    return "\n".join([*lines, "", "thinned check --explain L1 explains one rule."])


def rules_as_markdown() -> str:
    """The table of rules, for a page."""
    from ..checks.rules import RULES

    lines = [
        "| rule | name | severity | found in | mistake | reported in |",
        "|---|---|---|---|---|---|",
    ]
    for rule in RULES.values():
        source = rule.url.split("://")[1].removeprefix("github.com/").removeprefix("www.")
        label = (
            source.replace("/issues/", "#").replace("/pull/", "#")
            if "github.com" in rule.url
            else source.split("/")[0]
        )
        link = f"[{label}]({rule.url})"
        row = (rule.code, rule.name, rule.severity, _FOUND_IN[rule.how], rule.title, link)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _explained(name: str) -> str:
    """The full text about one rule."""
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
        parts.append("In source files. " + " ".join((inspect.getdoc(STATIC[code]) or "").split()))
    return "\n\n".join(
        [
            *parts,
            f"Reported in {rule.url}",
            f"To ignore it in one place: # thinned: ignore[{rule.code}]",
        ]
    )
