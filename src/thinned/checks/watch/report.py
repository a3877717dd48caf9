"""A watched run as text."""

from __future__ import annotations

from typing import Any

from .judging import losses_of, validations_of

HEADER = ("site", "kind", "nominal rate", "measured rate", "mean measured", "draws in")


def table_rows(watch: Any) -> list[tuple[str, ...]]:
    """The table of sites: a header, and a row for each site of the last sample."""
    samples = [r for r in watch.history if r["what"] == "sample"]
    table: list[tuple[str, ...]] = [HEADER]
    for name, site in samples[-1]["rates"].items() if samples else ():
        measured = [r["rates"][name]["measured"] for r in samples if name in r["rates"]]
        known = [rate for rate in measured if rate is not None]
        mean = sum(known) / len(known) if known else None
        modes = (("training", site["in_train"]), ("evaluation", site["in_eval"]))
        table.append(
            (
                name,
                site["kind"],
                _number(site["nominal"]),
                _number(site["measured"]),
                _number(mean),
                ", ".join(mode for mode, draws in modes if draws),
            )
        )
    return table


def summary(watch: Any) -> str:
    """Steps, samples, losses and overhead, in one line."""
    samples = [r for r in watch.history if r["what"] == "sample"]
    parts = [f"step {watch.steps:,}", f"{len(samples)} samples"]
    losses = losses_of(watch.history, watch.window)
    if losses is not None:
        parts.append(str(losses))
    elif samples and samples[-1]["train"] is not None:
        train, without = samples[-1]["train"], samples[-1]["without"]
        parts.append(f"loss {train:.4g} with dropout, {without:.4g} without (last sample)")
    if validations := validations_of(watch.history):
        last = validations[-1]
        parts.append(f"validation loss {last['loss']:.4g} (step {last['step']:,})")
    seconds = [r["seconds"] for r in samples if "seconds" in r]
    cost = f" ({sum(seconds) / len(seconds):.3g} s a sample)" if seconds else ""
    return "; ".join([*parts, f"overhead {watch.overhead:.1%}{cost}"])


def log_line(watch: Any) -> str:
    """The state of a run in one line, for a log."""
    findings = [f"{f.code} at {f.site or 'the model'}: {f.message}" for f in watch.findings]
    return " | ".join([summary(watch), *(v.text for v in watch.verdicts), *findings])


def text(watch: Any) -> str:
    """The table, the verdicts and the findings, for a terminal."""
    lines = [summary(watch), ""]
    table = table_rows(watch)
    if len(table) > 1:
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for row in table:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
        lines.append("")
    lines += [f"* {verdict}" for verdict in watch.verdicts]
    return "\n".join(lines + ([str(watch.findings)] if watch.findings else []))


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.3f}"
