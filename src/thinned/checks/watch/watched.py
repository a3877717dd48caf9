"""A watched run as text."""

from __future__ import annotations

from typing import Any


def rows(watch: Any) -> list[tuple[str, ...]]:
    """The table of sites: a head, and a row for each, of the last sample."""
    samples = [r for r in watch.history if r["what"] == "sample"]
    head = ("site", "kind", "rate", "measured", "mean", "draws in")
    found: list[tuple[str, ...]] = [head]
    for name, now in samples[-1]["rates"].items() if samples else ():
        seen = [r["rates"][name]["measured"] for r in samples if name in r["rates"]]
        known = [x for x in seen if x is not None]
        mean = f"{sum(known) / len(known):.3f}" if known else ""
        where = [
            word
            for word, on in (("training", now["in_train"]), ("evaluation", now["in_eval"]))
            if on
        ]
        found.append(
            (
                name,
                now["kind"],
                _number(now["nominal"]),
                _number(now["measured"]),
                mean,
                ", ".join(where),
            )
        )
    return found


def summary(watch: Any) -> str:
    """Steps, samples, losses and overhead, in one line."""
    samples = [r for r in watch.history if r["what"] == "sample"]
    parts = [f"step {watch.steps:,}", f"{len(samples)} samples"]
    if samples and samples[-1]["train"] is not None:
        parts.append(
            f"loss {samples[-1]['train']:.4g} with dropout, {samples[-1]['eval']:.4g} without"
        )
    valid = [r["loss"] for r in watch.history if r["what"] == "validation"]
    parts += [f"validation {valid[-1]:.4g}"] if valid else []
    return "; ".join([*parts, f"watching took {watch.overhead:.1%}"])


def line(watch: Any) -> str:
    """The state of a run in one line, for a log."""
    found = [f"{f.code} at {f.site or 'the model'}: {f.message}" for f in watch.findings]
    return " | ".join([summary(watch), *(v.text for v in watch.verdicts), *found])


def text(watch: Any) -> str:
    """The table, the verdict and the findings, for a terminal."""
    lines = [summary(watch), ""]
    table = rows(watch)
    if len(table) > 1:
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines += [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in table
        ] + [""]
    lines += [f"* {verdict}" for verdict in watch.verdicts]
    return "\n".join(lines + ([str(watch.findings)] if watch.findings else []))


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.3f}"
