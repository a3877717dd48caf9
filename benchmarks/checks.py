"""``thinned check``: precision and recall over the corpus, and the time of a tree of 100,000 lines.

``--tree FOLDER`` times that folder instead of a tree made of copies of the corpus. The time of the
parser of Python for the same files is printed as well: no checker of source code can be faster.
The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from common import write_result
from thinned.checks import RULES, check_source
from thinned.checks.static import STATIC, checked

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "checks" / "static"))
from programs import programs

LINES, SECONDS, SHARE = 100_000, 10.0, 0.98


def scores() -> dict[str, dict[str, int]]:
    """By rule: programs that break it and are reported (hit) or not (missed), and false reports."""
    counts: dict[str, Counter[str]] = {code: Counter(hit=0, missed=0, false=0) for code in STATIC}
    for program in programs():
        found = Counter(finding.code for finding in check_source(program.text, program.name))
        for code in STATIC:
            if code in program.expected:
                counts[code]["hit" if found[code] else "missed"] += 1
                counts[code]["false"] += max(0, found[code] - 1)  # one mistake reported twice
            else:
                counts[code]["false"] += found[code]
    return {code: dict(c) for code, c in counts.items()}


def shares(counts: list[dict[str, int]]) -> tuple[float, float]:
    """(precision, recall)."""
    hit, missed, false = (sum(c[k] for c in counts) for k in ("hit", "missed", "false"))
    return hit / max(1, hit + false), hit / max(1, hit + missed)


def tree(folder: Path, lines: int) -> None:
    """Write files of about 400 lines, made of whole programs of the corpus, ``lines`` in total."""
    texts = [p.text for p in programs() if p.path.suffix == ".py"]
    position, written, number = 0, 0, 0
    while written < lines:
        parts: list[str] = []
        while sum(t.count("\n") for t in parts) < min(400, lines - written):
            parts.append(texts[position % len(texts)])
            position += 1
        text = "\n\n".join(parts)
        written += text.count("\n")
        (folder / f"module_{number:04}.py").write_text(text, encoding="utf-8")
        number += 1


def timed(folder: Path) -> dict[str, float]:
    """The median of five timings in seconds; parsing and checking take turns."""
    files = [p for p in sorted(folder.rglob("*.py")) if p.is_file()]
    parse: list[float] = []
    check: list[float] = []
    processor: list[float] = []
    found = 0
    for _ in range(5):
        began = time.perf_counter()
        for path in files:
            ast.parse(path.read_bytes())
        parse.append(time.perf_counter() - began)
        began, work = time.perf_counter(), time.process_time()
        found = len(checked(folder)[0])
        check.append(time.perf_counter() - began)
        processor.append(time.process_time() - work)
    lines = sum(p.read_bytes().count(b"\n") for p in files)
    return {
        "files": len(files),
        "lines": lines,
        "findings": found,
        "parse": median(parse),
        "check": median(check),
        "processor": median(processor),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, help="time the check of this folder")
    folder = parser.parse_args().tree
    counts = scores()
    print(f"{'rule':<6}{'wrong':>6}{'hit':>6}{'false':>6}  precision  recall")
    for code, c in counts.items():
        precision, recall = shares([c])
        row = f"{code:<6}{c['hit'] + c['missed']:>6}{c['hit']:>6}{c['false']:>6}"
        print(f"{row}{precision:>11.3f}{recall:>8.3f}  {RULES[code].name}")
    precision, recall = shares(list(counts.values()))
    everything = programs()
    wrong = sum(bool(p.expected) for p in everything)
    print(
        f"{len(everything)} programs, {wrong} wrong: precision {precision:.3f}, "
        f"recall {recall:.3f} (target {SHARE})"
    )
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            tree(Path(temporary), LINES)
        times = timed(folder or Path(temporary))
    per = times["check"] * LINES / times["lines"]
    print(
        f"{times['lines']:,} lines in {times['files']:,} files: checked in {times['check']:.2f} s "
        f"({times['processor']:.2f} s of one processor), parsed alone in "
        f"{times['parse']:.2f} s; {per:.2f} s for {LINES:,} lines (target {SECONDS:.0f})"
    )
    if folder is None:
        write_result(
            "checks",
            {
                "programs": len(everything),
                "wrong": wrong,
                "precision": precision,
                "recall": recall,
                "rules": counts,
                "tree": times,
            },
        )
    sys.exit(int(min(precision, recall) < SHARE or per > SECONDS))


if __name__ == "__main__":
    main()
