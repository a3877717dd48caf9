"""``thinned check`` over a folder of public checkouts: findings, precision and recall by rule.

``python benchmarks/checks_public.py FOLDER`` checks every folder in FOLDER, one repository each,
named ``owner+name``. Two tables hold verdicts and no code, as ``repository, file, line, rule,
verdict``: ``checks_labels.csv``, on findings (true, false or debatable: precision), and
``checks_instances.csv``, on mistakes that were collected by text search before the rules were
changed (recall).
``--sample N`` shows N findings without a verdict, with the lines around them, for reading.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

from thinned.checks import RULES, Finding
from thinned.checks.static import checked

HERE = Path(__file__).parent
LABELS, INSTANCES = HERE / "checks_labels.csv", HERE / "checks_instances.csv"
VERDICTS = ("true", "false", "debatable")
# (repository, file, line, rule): a line of a notebook is a line of its file
Key = tuple[str, str, int, str]
NEAR = 3  # a mistake and its finding may have different lines of one statement


def table(path: Path) -> dict[Key, str]:
    """The verdicts of a table."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    verdicts = {(r["repository"], r["file"], int(r["line"]), r["rule"]): r["verdict"] for r in rows}
    wrong = next((k for k, v in verdicts.items() if v not in VERDICTS), None)
    if wrong is not None:
        raise SystemExit(f"{path.name}: {wrong} has no verdict of {VERDICTS}")
    return verdicts


def key(folder: Path, finding: Finding) -> Key:
    """The place of a finding, as the tables have it."""
    repository, *parts = Path(finding.file).relative_to(folder).parts
    line = finding.raw_line if finding.cell else finding.line
    return repository, "/".join(parts), line, finding.code


def share(counts: Counter[str]) -> str:
    """Strict precision: a debatable finding counts as a false one."""
    total = sum(counts[v] for v in VERDICTS)
    return f"{counts['true'] / total:.2f}" if total else "-"


def precision(found: dict[Key, Finding], labels: dict[Key, str]) -> None:
    """Print findings and verdicts, by rule and in total."""
    by_rule: dict[str, Counter[str]] = defaultdict(Counter)
    for place, finding in found.items():
        verdict = labels.get(place, "unread")
        severity = RULES[finding.code].severity
        for group in (finding.code, f"all {severity}s", "all", "all but notes"):
            if group != "all but notes" or severity != "note":
                by_rule[group][verdict] += 1
    print(
        f"{'rule':<16}{'found':>6}{'true':>6}{'false':>7}{'debatable':>11}{'unread':>8}  precision"
    )
    for group in sorted(by_rule, key=lambda g: (g.startswith("all"), len(g), g)):
        c = by_rule[group]
        print(
            f"{group:<16}{sum(c.values()):>6}{c['true']:>6}{c['false']:>7}{c['debatable']:>11}"
            f"{c['unread']:>8}  {share(c)}"
        )


def recall(found: dict[Key, Finding], instances: dict[Key, str], show: bool) -> None:
    """Print the share of the collected mistakes that some finding of the rule is near to."""
    lines: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for repository, file, line, code in found:
        lines[repository, file, code].append(line)
    hits: dict[str, Counter[bool]] = defaultdict(Counter)
    for repository, file, line, code in instances:
        hit = any(abs(line - other) <= NEAR for other in lines[repository, file, code])
        hits[code][hit] += 1
        hits["all"][hit] += 1
        if show and not hit:
            print(f"missed: {repository}/{file}:{line} {code}")
    for code in sorted(hits, key=lambda c: (c == "all", len(c), c)):
        total = hits[code].total()
        print(f"{code:<5}{hits[code][True]:>4} of {total:<4} recall {hits[code][True] / total:.2f}")


def show(finding: Finding, around: int = 6) -> None:
    """Print a finding with the lines around it."""
    where = finding.raw_line or finding.line
    print(f"\n== {finding.file}:{where} {finding.code} {finding.message}")
    if finding.cell:
        print(f"   {finding.source}")
        return
    lines = Path(finding.file).read_text(encoding="utf-8", errors="replace").splitlines()
    for number in range(max(1, where - around), min(len(lines), where + around) + 1):
        print(f"{'>' if number == where else ' '}{number:>5} {lines[number - 1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder with one folder for each repository")
    parser.add_argument("--labels", type=Path, default=LABELS, help="verdicts on findings")
    parser.add_argument("--instances", type=Path, default=INSTANCES, help="collected mistakes")
    parser.add_argument("--sample", type=int, default=0, help="show so many unread findings")
    parser.add_argument("--seed", type=int, default=0, help="which findings are shown")
    parser.add_argument("--rule", help="show and count only this rule")
    parser.add_argument(
        "--missed", action="store_true", help="list the mistakes that no rule finds"
    )
    options = parser.parse_args()
    began = time.perf_counter()
    findings, read = checked(options.folder, select=[options.rule] if options.rule else None)
    seconds = time.perf_counter() - began
    repositories = [p for p in options.folder.iterdir() if p.is_dir()]
    print(f"{len(repositories)} repositories, {read:,} files read in {seconds:.1f} s")
    found = {key(options.folder, finding): finding for finding in findings}
    labels = table(options.labels)
    precision(found, labels)
    present = {p.name for p in repositories}
    instances = {k: v for k, v in table(options.instances).items() if k[0] in present}
    if options.rule:
        instances = {k: v for k, v in instances.items() if k[3] == options.rule}
    recall(found, instances, options.missed)
    unread = [place for place in found if place not in labels]
    random.Random(options.seed).shuffle(unread)
    for place in sorted(unread[: options.sample]):
        show(found[place])


if __name__ == "__main__":
    main()
