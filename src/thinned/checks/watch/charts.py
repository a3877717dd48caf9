"""A chart of a watched run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._errors import InputError
from ..._optional import missing

try:
    from matplotlib.figure import Figure
except ImportError as e:  # pragma: no cover
    raise ImportError(missing(e, "watch")) from e

COLORS = ("#3b6fb6", "#d08c2e", "#4c9a6a", "#a05195", "#b0413e", "#6b7a8f", "#2f9aa0", "#8c6d46")
MAX_LINES = 8  # lines in one panel


def plot(watch: Any, path: Path) -> Path:
    """Draw three panels over the steps: losses, measured rates, dead units."""
    samples = [r for r in watch.history if r["what"] == "sample"]
    if not samples:
        raise InputError(
            "a chart needs at least one sample, but nothing was measured yet; call watch.step first"
        )
    figure = Figure(figsize=(7.6, 7.2), layout="constrained")
    losses, rates, dead = figure.subplots(3, 1, sharex=True)
    _losses(losses, watch.history, samples)
    _rates(rates, samples)
    _dead(dead, samples)
    dead.set_xlabel("step")
    for axes in (losses, rates, dead):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)
    return path


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold")


def _losses(axes: Any, history: Any, samples: Any) -> None:
    _title(axes, "Loss on the same batch with dropout and without")
    for key, label, color in (
        ("train", "with dropout", COLORS[1]),
        ("eval", "without", COLORS[0]),
    ):
        known = [(r["step"], r[key]) for r in samples if r[key] is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=color, label=label)
    valid = [(r["step"], r["loss"]) for r in history if r["what"] == "validation"]
    if valid:
        axes.plot(
            *zip(*valid, strict=True), "o-", color=COLORS[2], markersize=4, label="validation"
        )


def _rates(axes: Any, samples: Any) -> None:
    _title(axes, "Measured rates (nominal rates dashed)")
    names = list(
        dict.fromkeys(
            n for r in samples for n, rate in r["rates"].items() if rate["measured"] is not None
        )
    )
    for number, name in enumerate(names[:MAX_LINES]):
        values = [(r["step"], r["rates"][name]) for r in samples if name in r["rates"]]
        color = COLORS[number]
        axes.plot(
            [s for s, _ in values], [r["measured"] for _, r in values], color=color, label=name
        )
        axes.plot(
            [s for s, _ in values],
            [r["nominal"] for _, r in values],
            color=color,
            linewidth=1,
            linestyle="--",
        )
    axes.set_ylim(0, None)


def _dead(axes: Any, samples: Any) -> None:
    _title(axes, "Dead units, % of the units of each ReLU")
    for number, name in enumerate(list(samples[-1]["dead"])[:MAX_LINES]):
        values = [(r["step"], r["dead"][name]) for r in samples if name in r["dead"]]
        label = name or "the model"
        axes.plot(
            [s for s, _ in values],
            [100 * d / max(of, 1) for _, (d, of) in values],
            color=COLORS[number],
            label=label,
        )
    axes.set_ylim(-0.5, max(10.0, axes.get_ylim()[1]))
