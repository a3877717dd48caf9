"""Plots as SVG, with colors from CSS variables of the page.

One drawing serves the light and the dark theme; each is drawn once for wide and once for narrow
pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from .analysis import Analysis, is_sound
from .records import Record
from .verdict import MetricFormatter, loss_text, rate_curve

# Placeholders that no drawing uses otherwise; each is replaced by a CSS variable.
COLORS = {
    name: f"#00000{i:x}"
    for i, name in enumerate(("ink", "soft", "grid", "none", "dropout", "other", "combination"), 1)
}
WIDE, NARROW = (7.6, 3.1), (4.0, 3.3)

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": COLORS["ink"],
    "axes.edgecolor": COLORS["soft"],
    "axes.labelcolor": COLORS["soft"],
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLORS["soft"],
    "ytick.color": COLORS["soft"],
    "xtick.labelcolor": COLORS["soft"],
    "ytick.labelcolor": COLORS["soft"],
    "lines.linewidth": 2.0,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Plot:
    """A drawing for wide and for narrow pages, with its description as text."""

    wide: str
    narrow: str
    alt: str


def plot(name: str, alt: str, draw: Callable[[Figure, bool], None], panels: int = 1) -> Plot:
    """Draw twice: panels next to each other, and below each other for narrow pages."""

    def drawn(narrow: bool) -> str:
        width, height = NARROW if narrow else WIDE
        style: Any = {**STYLE, "svg.hashsalt": f"{name}-{narrow}"}
        with mpl.rc_context(style):
            figure = Figure(
                figsize=(width, height * (panels if narrow else 1)), layout="constrained"
            )
            draw(figure, narrow)
            return _svg(figure, f"{name}-{'n' if narrow else 'w'}")

    return Plot(drawn(False), drawn(True), alt)


def _svg(figure: Figure, name: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    for color, code in COLORS.items():
        svg = svg.replace(code, f"var(--{color})")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'xlink:href="#{name}-')
    svg = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1var(--sans)", svg)
    return re.sub(
        r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"',
        r'<svg \1\2aria-hidden="true"',
        svg,
        count=1,
    )


def _axes(figure: Figure, narrow: bool, panels: int) -> list[Axes]:
    grid = (
        figure.subplots(panels, 1, squeeze=False)
        if narrow
        else figure.subplots(1, panels, squeeze=False)
    )
    return list(grid.ravel())


def finite(data: Any) -> bool:
    """Whether every number in nested lists and dicts is finite."""
    if isinstance(data, dict):
        data = list(data.values())
    return all(map(finite, data)) if isinstance(data, (list, tuple)) else math.isfinite(data)


def _percent(axis: Axes, formatter: MetricFormatter) -> None:
    if formatter.percent:
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))


def _legend(axis: Axes, **more: Any) -> list[Any]:
    return axis.legend(
        handlelength=1.4, borderaxespad=0.1, labelcolor="linecolor", **more
    ).get_texts()


def rate(a: Analysis, formatter: MetricFormatter) -> Plot | None:
    """Error and loss by dropout rate, from overfitting to underfitting."""
    rows = rate_curve(a)
    if len(rows) < 3:
        return None
    x = [r["rate"] for r in rows]
    lines = (
        ("train", "training rows", "soft", "--"),
        ("val", "validation", "dropout", "-"),
        ("test", "test", "ink", "-"),
    )

    def draw(figure: Figure, narrow: bool) -> None:
        left, right = _axes(figure, narrow, 2)
        for axis, what in ((left, "metric"), (right, "loss")):
            for part, label, color, style in lines:
                axis.plot(
                    x,
                    [r[f"{part}_{what}"] for r in rows],
                    style,
                    color=COLORS[color],
                    marker="o",
                    label=label,
                )
            axis.set_xlabel("dropout rate on hidden layers")
            axis.set_xticks(x[::2] if len(x) > 6 else x)
        left.set_title(formatter.metric[0].upper() + formatter.metric[1:])
        right.set_title(formatter.loss[0].upper() + formatter.loss[1:])
        most = [max(r["val_metric"], r["test_metric"]) for r in rows]
        # an untrained network at rate 0.9 would flatten the rest of the curve
        top = min(max(most), 3 * sorted(most)[len(most) // 2] or max(most))
        if formatter.lower and min(most) >= 0:
            left.set_ylim(0, 1.08 * top or 1.0)
        right.set_yscale("log")
        right.yaxis.set_minor_formatter(NullFormatter())
        right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        _percent(left, formatter)
        _legend(left, loc="upper left")

    best = min(rows, key=lambda r: r["val_loss"])
    alt = (
        f"Over dropout rates from {x[0]:g} to {x[-1]:g}: validation loss is lowest at "
        f"{best['rate']:g}; training {formatter.metric} goes from "
        f"{formatter.value(rows[0]['train_metric'])} to "
        f"{formatter.value(rows[-1]['train_metric'])}."
    )
    return plot("rate", alt, draw, 2)


def _mean_curves(records: Sequence[Record], name: str) -> list[float]:
    """The mean over folds for each epoch that all of them ran.

    NaN, a gap in the line, where a value is not finite.
    """
    means = (fmean(values) for values in zip(*(r["history"][name] for r in records), strict=False))
    return [m if math.isfinite(m) else math.nan for m in means]


def learning(a: Analysis, formatter: MetricFormatter) -> Plot | None:
    """Training and validation loss by epoch, without and with regularizers.

    The area between the two lines is the generalization gap.
    """
    chosen = [("no regularizer", "none", a.baseline)]
    for family, color in (
        ("dropout", "dropout"),
        ("other", "other"),
        ("combination", "combination"),
    ):
        members = [
            method
            for method in a.methods
            if method.family == family and math.isfinite(method.loss.mean)
        ]
        if members:
            best = min(members, key=lambda m: fmean(a.validation(r) for r in m.chosen))
            chosen.append((best.title, color, best))
    curves = [
        (t, c, _mean_curves(method.chosen, "train_loss"), _mean_curves(method.chosen, "val_loss"))
        for t, c, method in chosen
    ]
    # NaN is not above 0
    curves = [c for c in curves if any(v > 0 for v in c[2]) and any(v > 0 for v in c[3])]
    if not curves or len(curves[0][2]) < 2:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        panels = (
            _axes(figure, narrow, len(curves))
            if narrow
            else list(figure.subplots(1, len(curves), sharey=True, squeeze=False)[0])
        )
        values = [v for _, _, train, val in curves for v in (*train, *val) if v > 0]
        for axis, (title, color, train, val) in zip(panels, curves, strict=True):
            epochs = range(1, len(train) + 1)
            axis.fill_between(epochs, train, val, color=COLORS[color], alpha=0.12, linewidth=0)
            axis.plot(epochs, train, "--", color=COLORS[color], linewidth=1.5)
            axis.plot(epochs, val, color=COLORS[color])
            axis.set_title(_wrapped(title, 26 if narrow else 19), fontsize=10)
            axis.set_yscale("log")
            axis.set_ylim(min(max(min(values), 1e-4), max(values)) * 0.8, max(values) * 1.2)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.set_xlabel("epoch")
        panels[0].set_ylabel(formatter.loss)

    alt = "; ".join(
        f"{t}: training {loss_text(train[-1])}, validation {loss_text(val[-1])} at the end"
        for t, _, train, val in curves
    )
    return plot("learning", f"Loss by epoch, mean of the folds. {alt}.", draw, len(curves))


def _wrapped(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def size(a: Analysis, formatter: MetricFormatter) -> Plot | None:
    """Test error by number of training rows, with equally many updates."""
    records = [r for r in a.of_experiment("size") if is_sound(r)]
    sizes, rates = sorted({r["size"] for r in records}), sorted({r["rate"] for r in records})
    if len(sizes) < 2:
        return None

    def value(n: int, p: float, i: int) -> float:
        found = [r["scores"]["test"][i] for r in records if r["size"] == n and r["rate"] == p]
        return fmean(found) if found else math.nan

    tints = {rates[0]: ("none", 1.0)} | {
        p: ("dropout", 0.55 + 0.45 * k / max(len(rates) - 2, 1)) for k, p in enumerate(rates[1:])
    }

    def draw(figure: Figure, narrow: bool) -> None:
        left, right = _axes(figure, narrow, 2)
        for p in rates:
            color, alpha = tints[p]
            label = "no dropout" if p == 0 else f"p = {p:g}"
            left.plot(
                sizes,
                [value(n, p, 1) for n in sizes],
                color=COLORS[color],
                alpha=alpha,
                marker="o",
                label=label,
            )
            if p:
                gain = [value(n, p, 1) - value(n, 0.0, 1) for n in sizes] if 0.0 in rates else []
                right.plot(
                    sizes[: len(gain)],
                    gain,
                    color=COLORS[color],
                    alpha=alpha,
                    marker="o",
                    label=label,
                )
        right.axhline(0, color=COLORS["none"], linewidth=1.5)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
            axis.xaxis.set_major_locator(
                FixedLocator(sizes[:: 2 if narrow and len(sizes) > 4 else 1])
            )
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel("training rows")
        left.set_title(f"Test {formatter.metric}")
        right.set_title("Difference from no dropout")
        if formatter.lower:
            left.set_ylim(bottom=0)
        _percent(left, formatter)
        if formatter.percent:
            right.yaxis.set_major_formatter(
                FuncFormatter(lambda v, _: f"{100 * v:+.1f}".replace("-", "−"))
            )
        _legend(left)

    alt = "; ".join(
        f"{n:,} rows: "
        + ", ".join(f"{formatter.value(value(n, p, 1))} at p = {p:g}" for p in rates)
        for n in (sizes[0], sizes[-1])
    )
    return plot("size", f"Test {formatter.metric} over training rows. {alt}.", draw, 2)


def monte_carlo(a: Analysis, formatter: MetricFormatter) -> Plot | None:
    """Averages of k thinned networks against one pass with scaled weights."""
    curve = (a.ensemble or {}).get("curve")
    if not curve or not finite(curve):
        return None
    ks = curve["samples"]
    kinds = [
        ("arithmetic", "arithmetic mean", "other"),
        ("geometric", "geometric mean", "combination"),
    ]

    def draw(figure: Figure, narrow: bool) -> None:
        left, right = _axes(figure, narrow, 2)
        for axis, i, title in ((left, 1, formatter.metric), (right, 0, formatter.loss)):
            for name, label, color in kinds:
                if name in curve:
                    means, spreads = ([entry[i][j] for entry in curve[name]] for j in (0, 1))
                    low, high = (
                        [m + s * d for m, d in zip(means, spreads, strict=True)] for s in (-1, 1)
                    )
                    axis.fill_between(ks, low, high, color=COLORS[color], alpha=0.15, linewidth=0)
                    axis.plot(ks, means, color=COLORS[color], label=label)
            axis.axhline(
                curve["scaled"][i],
                color=COLORS["dropout"],
                linestyle="--",
                label="weight scaling, one pass",
            )
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.set_xlabel("k, thinned networks averaged")
            axis.set_title(title[0].upper() + title[1:])
        _percent(left, formatter)
        _legend(right if not narrow else left)

    first, last, scaled = curve["arithmetic"][0], curve["arithmetic"][-1], curve["scaled"]
    alt = (
        f"Weight scaling: {formatter.value(scaled[1])}, loss {scaled[0]:.3f}. Arithmetic mean of "
        f"{ks[-1]} thinned networks: {formatter.value(last[1][0])}, loss {last[0][0]:.3f}; a "
        f"single one: {formatter.value(first[1][0])}."
    )
    return plot("monte-carlo", alt, draw, 2)


def subnetworks(a: Analysis, formatter: MetricFormatter) -> Plot | None:
    """The errors of all subnetworks of a small network, and of their averages."""
    exact = (a.ensemble or {}).get("exact")
    if not exact or not finite(exact):
        return None
    singles = exact["subnetworks"]

    def draw(figure: Figure, narrow: bool) -> None:
        axis = figure.subplots()
        label = f"{len(singles):,} subnetworks, mean {formatter.value(fmean(singles))}"
        axis.hist(singles, bins=40, color=COLORS["none"], alpha=0.55, label=label)
        scaled = "weight scaling = geometric mean" if "geometric" in exact else "weight scaling"
        for name, label, color in (
            ("scaled", scaled, "dropout"),
            ("arithmetic", "arithmetic mean", "other"),
        ):
            axis.axvline(
                exact[name][1],
                color=COLORS[color],
                linewidth=2.2,
                label=f"{label}: {formatter.value(exact[name][1])}",
            )
        axis.set_ylim(top=axis.get_ylim()[1] * (1.4 if narrow else 1.15))
        for text, color in zip(
            _legend(axis, loc="upper right"), ("soft", "dropout", "other"), strict=True
        ):
            text.set_color(COLORS[color])
        axis.set_xlabel(f"test {formatter.metric} of one subnetwork")
        axis.set_ylabel("subnetworks")
        if formatter.percent:
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))

    alt = (
        f"{len(singles):,} subnetworks have a mean {formatter.metric} of "
        f"{formatter.value(fmean(singles))}, the best {formatter.value(min(singles))}; weight "
        f"scaling has {formatter.value(exact['scaled'][1])}, "
        f"their arithmetic mean {formatter.value(exact['arithmetic'][1])}."
    )
    return plot("subnetworks", alt, draw)


def gradients(a: Analysis) -> Plot | None:
    """The gradient norm of each weight layer by epoch, without and with dropout."""
    pairs = [("no regularizer", "none", a.baseline)]
    pairs += [(method.title, "dropout", method) for method in a.methods if method.name == "dropout"]
    layers = len(a.baseline.chosen[0]["gradients"][0])
    series = {
        title: [_finite_means(method.chosen, layer) for layer in range(layers)]
        for title, _, method in pairs
    }
    pairs = [pair for pair in pairs if all(len(values) > 1 for values in series[pair[0]])]
    if not pairs:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        panels = _axes(figure, narrow, len(pairs))
        for axis, (title, color, _) in zip(panels, pairs, strict=True):
            for layer, values in enumerate(series[title]):
                strength = 0.35 + 0.65 * layer / max(layers - 1, 1)
                axis.plot(
                    range(1, len(values) + 1),
                    values,
                    color=COLORS[color],
                    alpha=strength,
                    linewidth=1.6,
                )
                axis.annotate(
                    f"{layer + 1}",
                    (len(values), values[-1]),
                    xytext=(3, 0),
                    textcoords="offset points",
                    color=COLORS["soft"],
                    fontsize=8.5,
                    va="center",
                )
            axis.set_yscale("log")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_title(title[0].upper() + title[1:])
            axis.set_xlabel("epoch")
        panels[0].set_ylabel("gradient norm of a layer")

    alt = "; ".join(
        f"{title}: first layer {values[0][-1]:.2g}, last layer {values[-1][-1]:.2g} at the end"
        for title, values in ((title, series[title]) for title, _, _ in pairs)
    )
    return plot(
        "gradients", f"Gradient norms by epoch, mean of the folds. {alt}.", draw, len(pairs)
    )


def _finite_means(records: Iterable[Record], layer: int) -> list[float]:
    rows = zip(*([norms[layer] for norms in r["gradients"]] for r in records), strict=False)
    return [max(fmean(values), 1e-12) for values in rows if all(map(math.isfinite, values))]
