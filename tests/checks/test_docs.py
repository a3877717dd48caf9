"""The pages on checks and on watching match the code. ``python -m tests.checks.test_docs`` writes
their tables again.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from thinned.checks.live import ranks
from thinned.checks.live.runner import CHECKS
from thinned.checks.rules import RULES
from thinned.checks.watch import judging
from thinned.cli.check import rules_as_markdown

DOCS = Path(__file__).parents[2] / "docs"


def live_rules() -> str:
    """Every live check under its rules, with its docstring."""
    codes: dict[object, list[str]] = {}
    for code, checks in CHECKS.items():
        for check in checks:
            codes.setdefault(check, []).append(code)
    codes[ranks.same_masks_on_ranks] = ["L9"]
    parts = []
    for check, of in sorted(codes.items(), key=lambda item: int(item[1][0][1:])):
        heads = [f"{code} {RULES[code].name} ({RULES[code].severity})" for code in of]
        body = inspect.getdoc(check).partition("\n\nArgs:")[0]
        parts.append(f"### {', '.join(heads)}\n\n{body.replace(':class:', '')}")
    return "\n\n".join(parts)


def thresholds() -> str:
    """Every threshold of a verdict and its reason, from the source."""
    rows = re.findall(r"^([A-Z_]+) = (.+?)  # (.+)$", inspect.getsource(judging), re.M)
    return "\n".join(
        [
            "| threshold | value | what it is of, and why |",
            "|---|---|---|",
            *(f"| {n} | {v} | {r} |" for n, v, r in rows),
        ]
    )


PAGES = {
    "checks.md": ("rules", rules_as_markdown),
    "checks-live.md": ("live rules", live_rules),
    "watch.md": ("thresholds", thresholds),
}


def split(page: str) -> tuple[str, str, str]:
    name = PAGES[page][0]
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = (DOCS / page).read_text().partition(first)
    table, _, after = rest.partition(last)
    return before + first, table.strip(), last + after


@pytest.mark.parametrize("page", PAGES)
def test_table_is_the_codes(page):
    assert split(page)[1] == PAGES[page][1]()


def test_all_live_rules_are_there():
    table = split("checks-live.md")[1]
    for code in {*CHECKS, "L9"}:
        assert re.search(rf"^### .*\b{code} ", table, re.M), code
    assert len(thresholds().splitlines()) >= 14


def test_chances_name_every_rule_once():
    text = (DOCS / "checks-live.md").read_text()
    rows = re.findall(r"^\| (L[^|]+) \|", text, re.M)
    named = [code for row in rows for code in re.findall(r"L\d+", row)]
    assert sorted(named) == sorted({*CHECKS, "L9"})


if __name__ == "__main__":
    for page, (_, make) in PAGES.items():
        before, _, after = split(page)
        (DOCS / page).write_text(f"{before}\n{make()}\n\n{after}")
