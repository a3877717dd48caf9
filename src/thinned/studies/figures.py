"""Plots as SVG that takes its colours from the page: light and dark from one drawing, wide and
narrow from one function.
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

from .analysis import Analysis, sound
from .records import Record
from .verdict import Words, loss_text, rate_curve

# Stand-ins that no drawing uses by chance; each becomes a CSS variable.
COLOURS = {
    name: f"#00000{i:x}"
    for i, name in enumerate(("ink", "soft", "grid", "none", "dropout", "rival", "pair"), 1)
}
WIDE, NARROW = (7.6, 3.1), (4.0, 3.3)

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["soft"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.titlecolor": COLOURS["ink"],
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
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
    """A drawing for wide and for narrow pages, and what it shows in words."""

    wide: str
    narrow: str
    alt: str


def plot(name: str, alt: str, draw: Callable[[Figure, bool], None], panels: int = 1) -> Plot:
    """Draw twice: panels beside each other, and below each other on narrow pages."""

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
    for colour, code in COLOURS.items():
        svg = svg.replace(code, f"var(--{colour})")
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
    """Is every number in nested lists and dicts finite?"""
    if isinstance(data, dict):
        data = list(data.values())
    return all(map(finite, data)) if isinstance(data, (list, tuple)) else math.isfinite(data)


def _percent(axis: Axes, words: Words) -> None:
    if words.percent:
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))


def _legend(axis: Axes, **more: Any) -> list[Any]:
    return axis.legend(
        handlelength=1.4, borderaxespad=0.1, labelcolor="linecolor", **more
    ).get_texts()


def rate(a: Analysis, words: Words) -> Plot | None:
    """Error and loss over the dropout rate: from overfitting to underfitting."""
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
            for part, label, colour, style in lines:
                axis.plot(
                    x,
                    [r[f"{part}_{what}"] for r in rows],
                    style,
                    color=COLOURS[colour],
                    marker="o",
                    label=label,
                )
            axis.set_xlabel("dropout rate on hidden layers")
            axis.set_xticks(x[::2] if len(x) > 6 else x)
        left.set_title(words.metric[0].upper() + words.metric[1:])
        right.set_title(words.loss[0].upper() + words.loss[1:])
        most = [max(r["val_metric"], r["test_metric"]) for r in rows]
        top = min(
            max(most), 3 * sorted(most)[len(most) // 2] or max(most)
        )  # a network at 0.9 would flatten the rest
        left.set_ylim(0, 1.08 * top or 1.0)
        right.set_yscale("log")
        right.yaxis.set_minor_formatter(NullFormatter())
        right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        _percent(left, words)
        _legend(left, loc="upper left")

    best = min(rows, key=lambda r: r["val_loss"])
    alt = (
        f"Over dropout rates from {x[0]:g} to {x[-1]:g}: validation loss is lowest at {best['rate']:g}; "
        f"training {words.metric} rises from {words.value(rows[0]['train_metric'])} to {words.value(rows[-1]['train_metric'])}."
    )
    return plot("rate", alt, draw, 2)


def _mean_curves(records: Sequence[Record], name: str) -> list[float]:
    """The mean over folds, epoch by epoch, as long as all run; NaN, a gap in the line, where one is
    not finite.
    """
    means = (fmean(values) for values in zip(*(r["history"][name] for r in records), strict=False))
    return [m if math.isfinite(m) else math.nan for m in means]


def learning(a: Analysis, words: Words) -> Plot | None:
    """Training and validation loss by epoch, without and with regularizers; the space between is
    the gap.
    """
    chosen = [("no regularizer", "none", a.none)]
    for family, colour in (("dropout", "dropout"), ("rival", "rival"), ("pair", "pair")):
        members = [arm for arm in a.arms if arm.family == family and math.isfinite(arm.loss.mean)]
        if members:
            best = min(members, key=lambda arm: arm.loss.mean)
            chosen.append((best.title, colour, best))
    curves = [
        (t, c, _mean_curves(arm.chosen, "train_loss"), _mean_curves(arm.chosen, "val_loss"))
        for t, c, arm in chosen
    ]
    curves = [
        c for c in curves if any(v > 0 for v in c[2]) and any(v > 0 for v in c[3])
    ]  # NaN is not above 0
    if not curves or len(curves[0][2]) < 2:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        panels = (
            _axes(figure, narrow, len(curves))
            if narrow
            else list(figure.subplots(1, len(curves), sharey=True, squeeze=False)[0])
        )
        values = [v for _, _, train, val in curves for v in (*train, *val) if v > 0]
        for axis, (title, colour, train, val) in zip(panels, curves, strict=True):
            epochs = range(1, len(train) + 1)
            axis.fill_between(epochs, train, val, color=COLOURS[colour], alpha=0.12, linewidth=0)
            axis.plot(epochs, train, "--", color=COLOURS[colour], linewidth=1.5)
            axis.plot(epochs, val, color=COLOURS[colour])
            axis.set_title(_wrapped(title, 26 if narrow else 19), fontsize=10)
            axis.set_yscale("log")
            axis.set_ylim(min(max(min(values), 1e-4), max(values)) * 0.8, max(values) * 1.2)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.set_xlabel("epoch")
        panels[0].set_ylabel(words.loss)

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


def size(a: Analysis, words: Words) -> Plot | None:
    """Test error over the number of training rows, at equal updates."""
    records = [r for r in a.of("size") if sound(r)]
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
            colour, alpha = tints[p]
            label = "no dropout" if p == 0 else f"p = {p:g}"
            left.plot(
                sizes,
                [value(n, p, 1) for n in sizes],
                color=COLOURS[colour],
                alpha=alpha,
                marker="o",
                label=label,
            )
            if p:
                gain = [value(n, p, 1) - value(n, 0.0, 1) for n in sizes] if 0.0 in rates else []
                right.plot(
                    sizes[: len(gain)],
                    gain,
                    color=COLOURS[colour],
                    alpha=alpha,
                    marker="o",
                    label=label,
                )
        right.axhline(0, color=COLOURS["none"], linewidth=1.5)
        for axis in (left, right):
            axis.set_xscale("log")
            axis.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.1)
            axis.xaxis.set_major_locator(
                FixedLocator(sizes[:: 2 if narrow and len(sizes) > 4 else 1])
            )
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel("training rows")
        left.set_title(f"Test {words.metric}")
        right.set_title("Difference to no dropout")
        left.set_ylim(bottom=0)
        _percent(left, words)
        if words.percent:
            right.yaxis.set_major_formatter(
                FuncFormatter(lambda v, _: f"{100 * v:+.1f}".replace("-", "−"))
            )
        _legend(left)

    alt = "; ".join(
        f"{n:,} rows: " + ", ".join(f"{words.value(value(n, p, 1))} at p = {p:g}" for p in rates)
        for n in (sizes[0], sizes[-1])
    )
    return plot("size", f"Test {words.metric} over training rows. {alt}.", draw, 2)


def monte_carlo(a: Analysis, words: Words) -> Plot | None:
    """Averages of k thinned networks against one pass with scaled weights."""
    curve = (a.ensemble or {}).get("curve")
    if not curve or not finite(curve):
        return None
    ks = curve["samples"]
    kinds = [("arithmetic", "arithmetic mean", "rival"), ("geometric", "geometric mean", "pair")]

    def draw(figure: Figure, narrow: bool) -> None:
        left, right = _axes(figure, narrow, 2)
        for axis, i, title in ((left, 1, words.metric), (right, 0, words.loss)):
            for name, label, colour in kinds:
                if name in curve:
                    means, spreads = ([spec[i][j] for spec in curve[name]] for j in (0, 1))
                    low, high = (
                        [m + s * d for m, d in zip(means, spreads, strict=True)] for s in (-1, 1)
                    )
                    axis.fill_between(ks, low, high, color=COLOURS[colour], alpha=0.15, linewidth=0)
                    axis.plot(ks, means, color=COLOURS[colour], label=label)
            axis.axhline(
                curve["scaled"][i],
                color=COLOURS["dropout"],
                linestyle="--",
                label="weight scaling, one pass",
            )
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.set_xlabel("k, thinned networks averaged")
            axis.set_title(title[0].upper() + title[1:])
        _percent(left, words)
        _legend(right if not narrow else left)

    one, last, scaled = curve["arithmetic"][0], curve["arithmetic"][-1], curve["scaled"]
    alt = (
        f"Weight scaling: {words.value(scaled[1])}, loss {scaled[0]:.3f}. Arithmetic mean of {ks[-1]} thinned networks: "
        f"{words.value(last[1][0])}, loss {last[0][0]:.3f}; one alone: {words.value(one[1][0])}."
    )
    return plot("monte-carlo", alt, draw, 2)


def subnetworks(a: Analysis, words: Words) -> Plot | None:
    """The errors of all subnetworks of a small net, and of the ensemble's readings."""
    exact = (a.ensemble or {}).get("exact")
    if not exact or not finite(exact):
        return None
    singles = exact["subnetworks"]

    def draw(figure: Figure, narrow: bool) -> None:
        axis = figure.subplots()
        label = f"{len(singles):,} subnetworks, mean {words.value(fmean(singles))}"
        axis.hist(singles, bins=40, color=COLOURS["none"], alpha=0.55, label=label)
        scaled = "weight scaling = geometric mean" if "geometric" in exact else "weight scaling"
        for name, label, colour in (
            ("scaled", scaled, "dropout"),
            ("arithmetic", "arithmetic mean", "rival"),
        ):
            axis.axvline(
                exact[name][1],
                color=COLOURS[colour],
                linewidth=2.2,
                label=f"{label}: {words.value(exact[name][1])}",
            )
        axis.set_ylim(top=axis.get_ylim()[1] * (1.4 if narrow else 1.15))
        for text, colour in zip(
            _legend(axis, loc="upper right"), ("soft", "dropout", "rival"), strict=True
        ):
            text.set_color(COLOURS[colour])
        axis.set_xlabel(f"test {words.metric} of one subnetwork")
        axis.set_ylabel("subnetworks")
        if words.percent:
            axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))

    alt = (
        f"{len(singles):,} subnetworks have a mean {words.metric} of {words.value(fmean(singles))}, the best "
        f"{words.value(min(singles))}; weight scaling has {words.value(exact['scaled'][1])}, "
        f"their arithmetic mean {words.value(exact['arithmetic'][1])}."
    )
    return plot("subnetworks", alt, draw)


def gradients(a: Analysis) -> Plot | None:
    """The gradient's length at each weight layer by epoch, without and with dropout."""
    pairs = [("no regularizer", "none", a.none)]
    pairs += [(arm.title, "dropout", arm) for arm in a.arms if arm.name == "dropout"]
    layers = len(a.none.chosen[0]["gradients"][0])
    series = {
        title: [_finite_means(arm.chosen, layer) for layer in range(layers)]
        for title, _, arm in pairs
    }
    pairs = [pair for pair in pairs if all(len(values) > 1 for values in series[pair[0]])]
    if not pairs:
        return None

    def draw(figure: Figure, narrow: bool) -> None:
        panels = _axes(figure, narrow, len(pairs))
        for axis, (title, colour, _) in zip(panels, pairs, strict=True):
            for layer, values in enumerate(series[title]):
                strength = 0.35 + 0.65 * layer / max(layers - 1, 1)
                axis.plot(
                    range(1, len(values) + 1),
                    values,
                    color=COLOURS[colour],
                    alpha=strength,
                    linewidth=1.6,
                )
                axis.annotate(
                    f"{layer + 1}",
                    (len(values), values[-1]),
                    xytext=(3, 0),
                    textcoords="offset points",
                    color=COLOURS["soft"],
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
