"""The report: one self-contained HTML file, made from the records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup

from . import figures
from .analysis import Analysis, Choice, is_sound
from .records import Record
from .verdict import MetricFormatter, loss_text, rate_curve, verdict

COLUMN_KINDS = {
    "number": "number",
    "date": "date",
    "time": "time of day",
    "category": "category",
    "text": "text",
    "key": "left out: index or identifier",
    "name": "left out: names",
    "empty": "left out: empty",
    "constant": "left out: constant",
}


def render(a: Analysis, outputs: Sequence[str]) -> str:
    """The report as HTML. ``outputs``: the names of the other files in its folder."""
    formatter = MetricFormatter.of(a)
    # of one network on one fold, without the measure of the study
    basic = MetricFormatter(a.data["kind"], a.baseline.metric.mean)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": formatter.value,
        "change": formatter.change,
        "loss": loss_text,
        "count": lambda n: f"{n:,}",
        "svg": Markup,
        "p": _p,
        "size": _bytes,
    }
    return environment.get_template("report.html.jinja").render(
        a=a,
        data=a.data,
        formatter=formatter,
        verdict=verdict(a),
        tiles=_tiles(a),
        methods=_method_rows(a),
        networks=len({_identity(r) for r in a.records}),
        rate=figures.rate(a, formatter),
        learning=figures.learning(a, formatter) if a.methods else None,
        size=figures.size(a, formatter),
        monte_carlo=figures.monte_carlo(a, basic),
        subnetworks=figures.subnetworks(a, basic),
        gradients=figures.gradients(a) if a.methods else None,
        maps=[m for m in (_layer_map(a), _batch_map(a), _optimizer_map(a)) if m],
        rates=rate_curve(a),
        animation=_animation(a),
        costs=_costs(a),
        flags=_flags(a),
        network=_network(a),
        learning_rate=_learning_rate(a),
        outputs=outputs,
        column_kinds=COLUMN_KINDS,
        isnan=math.isnan,
    )


def _identity(r: Record) -> str:
    """The identity of a network, which may have several uses, and so records, in a study."""
    return f"{r['chunk']} {r['recipe']}"


def _p(value: float) -> str:
    return (
        "–"
        if math.isnan(value)
        else "< 0.001"
        if value < 0.001
        else f"{value:.3f}"
        if value < 0.1
        else f"{value:.2f}"
    )


def _bytes(n: float) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def _network(a: Analysis) -> str:
    """The network of the study, as text."""
    kind, parts = next(iter(a.header["base"]["network"].items()))
    model = a.header["settings"]["model"]
    if kind == "custom":
        return f"{model}, with dropout before each of its weight layers"
    widths = " and ".join(map(str, parts.get("hidden") or parts["channels"]))
    if kind == "cnn":
        return f"{model}, convolutions of {widths} channels, then {parts['dense']} units"
    return f"{model}, hidden layers of {widths} units, {parts['activation']}"


def _learning_rate(a: Analysis) -> str:
    """The learning rate and how it was chosen, as text."""
    if a.header["settings"]["lr"] is not None:
        return f"{a.header['settings']['lr']:g} for all methods, as set by --lr"
    tried = ", ".join(f"{lr:g}" for lr in sorted({r["lr"] for r in a.of_experiment("pilot")}))
    return (
        f"{a.lr:g} for all methods. Of {tried} it has the lowest mean log validation loss of "
        "pilot networks in all folds (no regularizer, L2, dropout at 0.2 and 0.5). The choice of "
        "this one number used every row, equally for all methods"
    )


def _tiles(a: Analysis) -> list[dict[str, Any]]:
    if not a.methods:
        return []
    titles = {method.name: method.title for method in a.methods}
    out = [
        {
            "family": "none",
            "title": "no regularizer",
            "choice": a.baseline,
            "often": "learning rate chosen by validation",
        }
    ]
    for family, name in (
        ("dropout", "dropout alone"),
        ("other", "another regularizer"),
        ("combination", "dropout and another"),
    ):
        if family in a.families:
            choice = a.families[family]
            often = titles[choice.methods[0][0]]
            out.append(
                {"family": family, "title": name, "choice": choice, "often": f"most often {often}"}
            )
    if a.constant is not None:
        out.append(
            {
                "family": "none",
                "title": "constant prediction",
                "choice": a.constant,
                "often": a.constant.label,
            }
        )
    return out


def _method_rows(a: Analysis) -> dict[str, Any]:
    """The rows of the comparison, with the position of each interval on a strip, in percent."""
    others = sorted((x for x in a.methods if x.name != "none"), key=lambda x: x.rank)
    reach = (
        max((abs(v) for x in others for v in _reach(x) if math.isfinite(v)), default=0.0) * 1.05
        or 1.0
    )

    def at(v: float) -> float:
        return round(50 + 50 * v / reach, 2)

    rows: list[dict[str, Any]] = []
    for x in others:
        low, high = _reach(x)
        if math.isnan(low):
            rows.append({"method": x, "mean": None, "known": False})
            continue
        rows.append(
            {
                "method": x,
                "low": at(low),
                "width": round(at(high) - at(low), 2),
                "mean": at(x.change.mean),
                "known": low < high,
            }
        )
    return {"rows": rows, "reach": reach, "count": len(others)}


def _reach(x: Choice) -> tuple[float, float]:
    low, high = x.ends
    return (x.change.mean, x.change.mean) if math.isnan(low) else (low, high)


def _heat(
    title: str,
    text: str,
    across: str,
    down: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[tuple[float, float]]]],
) -> dict[str, Any]:
    """A table of losses (validation, test), which shows those on test rows.

    Lower ones have a stronger tint, on a logarithmic scale. The cell with the lowest validation
    loss has a frame, so that no test row chooses.
    """
    known = [v for _, values in rows for _, v in values if v > 0 and math.isfinite(v)]
    best = min((c[0] for _, values in rows for c in values if math.isfinite(c[0])), default=None)
    low, high = (math.log(min(known)), math.log(max(known))) if known else (0.0, 0.0)

    def cell(pair: tuple[float, float]) -> dict[str, Any]:
        val, v = pair
        good = v > 0 and math.isfinite(v)
        tint = (high - math.log(v)) / (high - low) if good and high > low else 0.0
        return {
            "text": loss_text(v),
            "tint": round(100 * tint**1.5),
            "best": val == best,
        }

    return {
        "title": title,
        "text": text,
        "across": across,
        "down": down,
        "columns": columns,
        "rows": [(name, [cell(v) for v in values]) for name, values in rows],
    }


NO_CELL = (math.nan, math.nan)


def _means(
    records: Sequence[Record], keys: tuple[str, str]
) -> dict[tuple[Any, Any], tuple[float, float]]:
    """The mean (validation, test) loss over folds at each pair of coordinates."""
    found: dict[tuple[Any, Any], list[Record]] = {}
    for r in records:
        found.setdefault((r[keys[0]], r[keys[1]]), []).append(r)
    return {k: _mean_losses(v) for k, v in found.items()}


def _mean_losses(records: Sequence[Record]) -> tuple[float, float]:
    val, test = (fmean(r["scores"][part][0] for r in records) for part in ("val", "test"))
    return val, test


def _grid(cells: dict[tuple[Any, Any], Any]) -> tuple[list[Any], list[Any]]:
    return sorted({k[0] for k in cells}), sorted({k[1] for k in cells})


def _layer_map(a: Analysis) -> dict[str, Any] | None:
    records = a.of_experiment("layers")
    if not records:
        return None
    cells = _means(records, ("first", "last"))
    downs, acrosses = _grid(cells)
    first, last = records[0]["positions"]
    rows = [(f"{d:g}", [cells.get((d, c), NO_CELL) for c in acrosses]) for d in downs]
    text = (
        "Is it better to drop more in early or in late layers? Test loss for each pair of rates, "
        f"mean of {_folds(records)}."
    )
    return _heat(
        "A rate for each layer",
        text,
        f"rate, {last}",
        f"rate, {first}",
        [f"{c:g}" for c in acrosses],
        rows,
    )


def _batch_map(a: Analysis) -> dict[str, Any] | None:
    records = a.of_experiment("batch")
    if not records:
        return None
    cells = _means(records, ("batch", "rate"))
    downs, acrosses = _grid(cells)
    rows = [(f"{d:,}", [cells.get((d, c), NO_CELL) for c in acrosses]) for d in downs]
    text = (
        "Small batches are a source of noise too. Test loss after equally many epochs, with a "
        "learning rate proportional to the root of the batch size, "
        f"mean of {_folds(records)}."
    )
    return _heat(
        "Rate and minibatch size",
        text,
        "dropout rate",
        "batch size",
        [f"{c:g}" for c in acrosses],
        rows,
    )


def _optimizer_map(a: Analysis) -> dict[str, Any] | None:
    records = a.of_experiment("optimizer")
    if not records:
        return None
    # at each dropout rate, the learning rate of the optimizer with the lower validation loss
    by: dict[tuple[str, float], dict[float, list[Record]]] = {}
    for r in records:
        by.setdefault((r["optimizer"], r["rate"]), {}).setdefault(r["lr"], []).append(r)

    def value(r: Record, part: str) -> float:
        v = r["scores"][part][0]
        return float(v) if math.isfinite(v) else math.inf

    cells = {}
    for key, by_lr in by.items():
        best = min(by_lr.values(), key=lambda rs: fmean(value(r, "val") for r in rs))
        cells[key] = _mean_losses(best)
    names, rates = list(dict.fromkeys(k[0] for k in by)), sorted({k[1] for k in by})
    rows = [(n, [cells.get((n, c), NO_CELL) for c in rates]) for n in names]
    text = (
        "Test loss, each optimizer at the better of two learning rates (by validation), "
        f"mean of {_folds(records)}."
    )
    return _heat(
        "Rate and optimizer", text, "dropout rate", "optimizer", [f"{c:g}" for c in rates], rows
    )


def _folds(records: Sequence[Record]) -> str:
    n = len({r["fold"] for r in records})
    return f"{n} fold{'s' if n > 1 else ''}"


def _animation(a: Analysis) -> dict[str, Any] | None:
    """Coordinates of the small network and of its losses, and the frames of the animation."""
    animation = (a.ensemble or {}).get("animation")
    if not animation or not figures.finite([(f["loss"], f["val"]) for f in animation["frames"]]):
        return None
    widths = [*animation["widths"], min(animation["outputs"], 10)]
    xs = [190, 355, 520]
    units = [
        [(x, 130 + (i - (n - 1) / 2) * (240 / max(n, 6))) for i in range(n)]
        for x, n in zip(xs, widths, strict=True)
    ]
    edges = [
        {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "from": f"{layer}-{i}", "to": f"{layer + 1}-{j}"}
        for layer in (0, 1)
        for i, (x1, y1) in enumerate(units[layer])
        for j, (x2, y2) in enumerate(units[layer + 1])
    ]
    frames = animation["frames"]
    losses = [f[k] for f in frames for k in ("loss", "val")]
    low, high = min(losses), max(losses)

    def line(key: str) -> str:
        heights = (100 - 90 * (f[key] - low) / max(high - low, 1e-9) for f in frames)
        step = 600 / max(len(frames) - 1, 1)
        return " ".join(f"{20 + step * i:.1f},{y:.1f}" for i, y in enumerate(heights))

    return {
        "units": units,
        "edges": edges,
        "inputs": a.data["inputs"],
        "outputs": animation["outputs"],
        "frames": frames,
        "p": animation["p"],
        "loss": line("loss"),
        "val": line("val"),
    }


def _costs(a: Analysis) -> list[dict[str, Any]]:
    if not a.costs:
        return []
    titles = {method.name: (method.title, method.family) for method in a.methods}
    longest = max(c["milliseconds"] for c in a.costs)
    base = next((c["milliseconds"] for c in a.costs if c["method"] == "none"), longest)
    return [
        {
            **c,
            "title": titles.get(c["method"], (c["method"], ""))[0],
            "family": titles.get(c["method"], ("", "none"))[1],
            "share": round(100 * c["milliseconds"] / longest, 1),
            "ratio": c["milliseconds"] / base,
        }
        for c in a.costs
    ]


def _flags(a: Analysis) -> list[tuple[str, int, str]]:
    """Problems in training: the problem, the number of networks, and the most frequent settings."""
    networks: dict[str, set[str]] = {}
    where: dict[str, Counter[str]] = {}
    for r in a.records:
        # a score that is not finite counts as divergence too
        diverged = [] if is_sound(r) or r["diverged"] is not None else ["diverged"]
        for flag in (*diverged, *r["flags"]):
            kind = flag.split(":")[0].split(" in epoch")[0]
            networks.setdefault(kind, set()).add(_identity(r))
            where.setdefault(kind, Counter())[_setting(r)] += 1
    return [
        (kind, len(ids), ", ".join(name for name, _ in where[kind].most_common(3)))
        for kind, ids in networks.items()
    ]


def _setting(r: Record) -> str:
    if r["experiment"] == "methods":
        return f"{r['method']} ({r['label']})"
    values = {
        k: r[k] for k in ("optimizer", "lr", "rate", "batch", "size", "first", "last") if k in r
    }
    return f"{r['experiment']} map ({', '.join(f'{k} {v}' for k, v in values.items())})"
