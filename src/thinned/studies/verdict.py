"""The verdict of a study, in sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from .analysis import Analysis, Choice, compare_choices, is_sound
from .records import Record
from .stats import Difference


@dataclass
class Verdict:
    """The verdict of a study.

    Args:
        headline: One sentence.
        tone: "helps", "unclear" or "hurts".
        sentences: (subject, text) pairs that follow the headline.
    """

    headline: str
    tone: str
    sentences: list[tuple[str, str]]


class MetricFormatter:
    """Formats values of the metric of a study.

    Error rates are in percent, and their differences in percentage points. Other values have the
    number of decimals that a value of the size of ``typical`` needs.
    """

    def __init__(self, kind: str, typical: float = 1.0) -> None:
        self.percent = kind == "classification"
        self.metric = "error" if self.percent else "RMSE"
        self.loss = "log-loss" if self.percent else "squared error"
        self.unit = " percentage points" if self.percent else ""  # of differences
        size = math.floor(math.log10(typical)) if typical > 0 and math.isfinite(typical) else 0
        self.decimals = 1 if self.percent else max(0, 2 - size)

    def value(self, x: float) -> str:
        """A value of the metric; a dash where it is not finite."""
        if not math.isfinite(x):
            return "–"
        return f"{100 * x:.1f} %" if self.percent else f"{x:,.{self.decimals}f}"

    def change(self, x: float) -> str:
        """A signed difference, without its unit."""
        if not math.isfinite(x):
            return "–"
        text = f"{100 * x if self.percent else x:+,.{self.decimals}f}"
        return text[1:] if float(text.replace(",", "")) == 0 else text.replace("-", "−")

    def range(self, d: Difference) -> str:
        """The 95 % interval of a difference, with its unit."""
        if math.isnan(d.low):
            return "unknown"
        return f"{self.change(d.low)} to {self.change(d.high)}{self.unit}"


def loss_text(x: float) -> str:
    return f"{x:.3f}" if math.isfinite(x) else "–"


def loss_range(d: Difference) -> str:
    return "unknown" if math.isnan(d.low) else f"{d.low:+.3f} to {d.high:+.3f}".replace("-", "−")


def verdict(a: Analysis) -> Verdict:
    """The verdict of the study on dropout for its data."""
    formatter = MetricFormatter(a.data["kind"], a.baseline.metric.mean)
    if "dropout" not in a.families:
        return Verdict(
            "This study has no method with dropout alone.", "unclear", _advice(a, formatter)
        )
    dropout, none = a.families["dropout"], a.baseline
    headline, tone = _headline(dropout, none, formatter)
    if math.isnan(dropout.metric.mean) or math.isnan(none.metric.mean):
        return Verdict(headline, tone, [*_diverged(a), *_advice(a, formatter)])
    power = _power(dropout.metric_change, formatter) if tone == "unclear" else []
    return Verdict(
        headline,
        tone,
        [
            *power,
            *_diverged(a),
            *_which(a),
            *_how_much(a, formatter),
            *_others(a, formatter),
            *_advice(a, formatter),
        ],
    )


def _headline(dropout: Choice, none: Choice, formatter: MetricFormatter) -> tuple[str, str]:
    diverged = [
        which
        for which, c in (("without a regularizer", none), ("with dropout", dropout))
        if math.isnan(c.metric.mean)
    ]
    if diverged:
        return (
            f"Training diverged {' and '.join(diverged)}, so there is nothing to compare; try a "
            "smaller --lr.",
            "unclear",
        )
    with_dropout, without = (formatter.value(c.metric.mean) for c in (dropout, none))
    numbers = f"{formatter.metric} {with_dropout} with dropout, {without} without"
    if math.isnan(dropout.metric_change.low):
        return (
            f"{numbers[0].upper()}{numbers[1:]}; one fold alone cannot show whether that is "
            "chance.",
            "unclear",
        )
    loss = f"{formatter.loss} {loss_text(dropout.loss.mean)} against {loss_text(none.loss.mean)}"
    interval = f"95 % interval of the difference {formatter.range(dropout.metric_change)}"
    loss_interval = f"interval {loss_range(dropout.loss_change)}"
    on_metric, on_loss = dropout.metric_change.direction(), dropout.loss_change.direction()
    if on_metric < 0:
        return f"Dropout helps: {numbers} ({interval}); {loss} ({loss_interval}).", "helps"
    if on_metric > 0:
        return f"Dropout hurts here: {numbers} ({interval}); {loss} ({loss_interval}).", "hurts"
    same = f"No difference in {formatter.metric} is shown: {numbers} ({interval})."
    if on_loss < 0:
        what = (
            "the predicted probabilities are better"
            if formatter.percent
            else "the squared error is lower"
        )
        return f"With dropout {what}: {loss} ({loss_interval}). {same}", "helps"
    if on_loss > 0:
        return (
            f"Dropout makes the {formatter.loss} worse: {loss} ({loss_interval}). {same}",
            "hurts",
        )
    return f"No difference is shown: {numbers} ({interval}); {loss} ({loss_interval}).", "unclear"


def _power(d: Difference, formatter: MetricFormatter) -> list[tuple[str, str]]:
    """The smallest difference that a study of this size can detect."""
    half = (d.high - d.low) / 2
    if not half > 0:
        return []
    size = f"{100 * half:.1f}{formatter.unit}" if formatter.percent else f"{half:.2g}"
    return [
        (
            "How sure",
            f"With these rows and folds, a difference in {formatter.metric} below about {size} "
            "cannot be distinguished from chance.",
        )
    ]


def _diverged(a: Analysis) -> list[tuple[str, str]]:
    """The methods without a score in some fold, because all of their candidates diverged."""
    names = [method.title for method in a.methods if not all(map(is_sound, method.chosen))]
    return (
        [
            (
                "Diverged",
                f"In some folds every strength of {', '.join(names)} diverged; those folds are "
                "left out.",
            )
        ]
        if names
        else []
    )


def _which(a: Analysis) -> list[tuple[str, str]]:
    chosen = a.families["dropout"].methods
    titles = {method.name: method.title for method in a.methods}
    if len(chosen) == 1:
        return [("Which method", f"Validation chose {titles[chosen[0][0]]} in every fold.")]
    kinds = ", ".join(f"{titles[name]} in {times}" for name, times in chosen)
    return [("Which method", f"Of {len(a.folds)} folds, validation chose {kinds}.")]


def _how_much(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    curve = rate_curve(a)
    if len(curve) < 2:
        return []
    best = min(curve, key=lambda row: row["val_loss"])
    near = [
        row["rate"] for row in curve if row["val_loss"] <= best["val_loss"] + row["error_to_best"]
    ]
    near_best = (
        f"; from {min(near):g} to {max(near):g} it is within one standard error of that"
        if len(near) > 1
        else ""
    )
    out = [
        (
            "How much",
            "One rate on all hidden layers has its lowest validation loss at "
            f"p = {best['rate']:g}{near_best}.",
        )
    ]
    if best["rate"] > 0 and curve[0]["rate"] == 0:
        out.append(
            (
                "What it does",
                f"The gap between validation and training loss is {loss_text(best['gap'])} at that "
                f"rate and {loss_text(curve[0]['gap'])} without dropout; training "
                f"{formatter.metric} goes from {formatter.value(curve[0]['train_metric'])} at "
                f"p = 0 to {formatter.value(curve[-1]['train_metric'])} at "
                f"p = {curve[-1]['rate']:g}.",
            )
        )
    return out


def rate_curve(a: Analysis) -> list[dict[str, float]]:
    """For each dropout rate, the means over the folds.

    ``error_to_best`` is the standard error of the difference of its validation loss to the lowest.
    """
    by_rate: dict[float, dict[int, Record]] = {}
    for r in a.of_experiment("rate"):
        if is_sound(r):
            by_rate.setdefault(r["rate"], {})[r["fold"]] = r
    rows = []
    for rate, by_fold in sorted(by_rate.items()):
        row = {"rate": rate, "gap": fmean(r["gap"] for r in by_fold.values())}
        for part in ("train", "val", "test"):
            row[f"{part}_loss"] = fmean(r["scores"][part][0] for r in by_fold.values())
            row[f"{part}_metric"] = fmean(r["scores"][part][1] for r in by_fold.values())
        rows.append(row)
    if rows:
        best = by_rate[min(rows, key=lambda row: row["val_loss"])["rate"]]
        for row in rows:
            by_fold = by_rate[row["rate"]]
            changes = [
                by_fold[f]["scores"]["val"][0] - best[f]["scores"]["val"][0]
                for f in by_fold
                if f in best
            ]
            row["error_to_best"] = (
                stdev(changes) / math.sqrt(len(changes)) if len(changes) > 1 else 0.0
            )
    return rows


def _others(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    out = []
    titles = {method.name: method.title for method in a.methods}
    dropout = a.families["dropout"]
    for family, subject in (
        ("other", "Other regularizers"),
        ("combination", "Combinations"),
    ):
        if family not in a.families:
            continue
        other = a.families[family]
        loss, metric = compare_choices(other, dropout, a.test_share)
        numbers = (
            f"{formatter.metric} {formatter.value(other.metric.mean)} and {formatter.loss} "
            f"{loss_text(other.loss.mean)}"
        )
        if metric.direction():
            better = "better" if metric.direction() < 0 else "worse"
            comparison = f"that is {better} than dropout alone ({formatter.range(metric)})"
        elif loss.direction():
            better = "better" if loss.direction() < 0 else "worse"
            comparison = (
                f"in {formatter.loss} that is {better} than dropout alone ({loss_range(loss)})"
            )
        else:
            comparison = f"no difference from dropout alone is shown ({formatter.range(metric)})"
        often = (
            f"most often {titles[other.methods[0][0]]}"
            if len(other.methods) > 1
            else titles[other.methods[0][0]]
        )
        out.append((subject, f"What validation chose ({often}) has {numbers}; {comparison}."))
    return out


def _advice(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    setting = a.best_setting(("none", "dropout", "other", "combination"))
    method = next(x for x in a.methods if x.name == setting["method"])
    why = "the lowest mean validation loss of all (policy.json)"
    if not math.isfinite(setting["scores"]["val"][0]):
        return [
            (
                "Recommended setting",
                "None: every setting diverged in some fold, so do not use policy.json.",
            )
        ]
    out = [("Recommended setting", f"{method.title}, {setting['label']}: {why}.")]
    if method.extra is not None and a.baseline.extra is not None:
        out.append(
            (
                "On the separate test set",
                f"Its {a.data['extra']:,} rows influenced no choice: {formatter.metric} "
                f"{formatter.value(method.extra)} for {method.title}, "
                f"{formatter.value(a.baseline.extra)} without a regularizer.",
            )
        )
    return out
