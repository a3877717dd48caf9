"""A study in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from .analysis import Analysis, Choice, sound, versus
from .records import Record
from .stats import Difference


@dataclass
class Verdict:
    """``headline``: one sentence. ``tone``: helps, unclear, hurts. ``sentences``: (subject, text)
    pairs that follow it.
    """

    headline: str
    tone: str
    sentences: list[tuple[str, str]]


class Words:
    """Numbers of a metric as people write them: errors in percent, others with as many decimals as
    ``typical`` needs.
    """

    def __init__(self, kind: str, typical: float = 1.0) -> None:
        self.percent = kind == "classification"
        self.metric = "error" if self.percent else "RMSE"
        self.loss = "log-loss" if self.percent else "squared error"
        size = math.floor(math.log10(typical)) if typical > 0 and math.isfinite(typical) else 0
        self.decimals = 1 if self.percent else max(0, 2 - size)

    def value(self, x: float) -> str:
        if not math.isfinite(x):
            return "–"
        return f"{100 * x:.1f} %" if self.percent else f"{x:,.{self.decimals}f}"

    def change(self, x: float) -> str:
        """A signed difference, in points for percentages."""
        if not math.isfinite(x):
            return "–"
        text = f"{100 * x if self.percent else x:+,.{self.decimals}f}"
        return text[1:] if float(text.replace(",", "")) == 0 else text.replace("-", "−")

    def range(self, d: Difference) -> str:
        if math.isnan(d.low):
            return "unknown"
        return f"{self.change(d.low)} to {self.change(d.high)}{' specs' if self.percent else ''}"


def loss_text(x: float) -> str:
    return f"{x:.3f}" if math.isfinite(x) else "–"


def loss_range(d: Difference) -> str:
    return "unknown" if math.isnan(d.low) else f"{d.low:+.3f} to {d.high:+.3f}".replace("-", "−")


def verdict(a: Analysis) -> Verdict:
    """What the study says of dropout on this data."""
    words = Words(a.data["kind"], a.none.metric.mean)
    if "dropout" not in a.families:
        return Verdict("This study has no arm with dropout alone.", "unclear", _advice(a, words))
    dropout, none = a.families["dropout"], a.none
    headline, tone = _headline(dropout, none, words)
    if math.isnan(dropout.metric.mean) or math.isnan(none.metric.mean):
        return Verdict(headline, tone, [*_diverged(a), *_advice(a, words)])
    sure = _power(dropout.metric_change, words) if tone == "unclear" else []
    return Verdict(
        headline,
        tone,
        [
            *sure,
            *_diverged(a),
            *_which(a),
            *_how_much(a, words),
            *_others(a, words),
            *_advice(a, words),
        ],
    )


def _headline(dropout: Choice, none: Choice, words: Words) -> tuple[str, str]:
    lost = [
        which
        for which, c in (("without a regularizer", none), ("with dropout", dropout))
        if math.isnan(c.metric.mean)
    ]
    if lost:
        return (
            f"Training diverged {' and '.join(lost)}, so there is nothing to compare; try a smaller --lr.",
            "unclear",
        )
    numbers = f"{words.metric} {words.value(dropout.metric.mean)} with dropout, {words.value(none.metric.mean)} without"
    if math.isnan(dropout.metric_change.low):
        return (
            f"{numbers[0].upper()}{numbers[1:]}; one fold alone cannot say whether that is chance.",
            "unclear",
        )
    loss = f"{words.loss} {loss_text(dropout.loss.mean)} against {loss_text(none.loss.mean)}"
    interval = f"95 % interval of the difference {words.range(dropout.metric_change)}"
    loss_interval = f"interval {loss_range(dropout.loss_change)}"
    on_metric, on_loss = dropout.metric_change.shown(), dropout.loss_change.shown()
    if on_metric < 0:
        return f"Dropout helps: {numbers} ({interval}); {loss} ({loss_interval}).", "helps"
    if on_metric > 0:
        return f"Dropout hurts here: {numbers} ({interval}); {loss} ({loss_interval}).", "hurts"
    same = f"No difference in {words.metric} is shown: {numbers} ({interval})."
    if on_loss < 0:
        what = (
            "the predicted probabilities are better"
            if words.percent
            else "the squared error is lower"
        )
        return f"With dropout {what}: {loss} ({loss_interval}). {same}", "helps"
    if on_loss > 0:
        return f"Dropout makes the {words.loss} worse: {loss} ({loss_interval}). {same}", "hurts"
    return f"No difference is shown: {numbers} ({interval}); {loss} ({loss_interval}).", "unclear"


def _power(d: Difference, words: Words) -> list[tuple[str, str]]:
    """What a study of this size could have seen."""
    half = (d.high - d.low) / 2
    if not half > 0:
        return []
    size = f"{100 * half:.1f} points" if words.percent else f"{half:.2g}"
    return [
        (
            "How sure",
            f"With these rows and folds, a difference in {words.metric} under about {size} cannot be told from chance.",
        )
    ]


def _diverged(a: Analysis) -> list[tuple[str, str]]:
    """Arms that have no score in some fold, because whatever they chose from diverged."""
    names = [arm.title for arm in a.arms if not all(map(sound, arm.chosen))]
    return (
        [
            (
                "Diverged",
                f"In some folds every strength of {', '.join(names)} diverged; those folds are left out.",
            )
        ]
        if names
        else []
    )


def _which(a: Analysis) -> list[tuple[str, str]]:
    chosen = a.families["dropout"].arms
    titles = {arm.name: arm.title for arm in a.arms}
    if len(chosen) == 1:
        return [("Which kind", f"Validation chose {titles[chosen[0][0]]} in every fold.")]
    kinds = ", ".join(f"{titles[name]} in {times}" for name, times in chosen)
    return [("Which kind", f"Of {len(a.folds)} folds, validation chose {kinds}.")]


def _how_much(a: Analysis, words: Words) -> list[tuple[str, str]]:
    curve = rate_curve(a)
    if len(curve) < 2:
        return []
    best = min(curve, key=lambda row: row["val_loss"])
    near = [
        row["rate"] for row in curve if row["val_loss"] <= best["val_loss"] + row["error_to_best"]
    ]
    flat = (
        f"; from {min(near):g} to {max(near):g} it is within a standard error of that"
        if len(near) > 1
        else ""
    )
    out = [
        (
            "How much",
            f"One rate on all hidden layers has its lowest validation loss at p = {best['rate']:g}{flat}.",
        )
    ]
    if best["rate"] > 0 and curve[0]["rate"] == 0:
        out.append(
            (
                "What it does",
                f"The gap between validation and training loss is {loss_text(best['gap'])} at that rate and "
                f"{loss_text(curve[0]['gap'])} without dropout; training {words.metric} goes from "
                f"{words.value(curve[0]['train_metric'])} at p = 0 to {words.value(curve[-1]['train_metric'])} "
                f"at p = {curve[-1]['rate']:g}.",
            )
        )
    return out


def rate_curve(a: Analysis) -> list[dict[str, float]]:
    """For each rate the means over folds. ``error_to_best``: the standard error of its validation
    loss less the best's.
    """
    by_rate: dict[float, dict[int, Record]] = {}
    for r in a.of("rate"):
        if sound(r):
            by_rate.setdefault(r["rate"], {})[r["fold"]] = r
    rows = []
    for rate, some in sorted(by_rate.items()):
        row = {"rate": rate, "gap": fmean(r["gap"] for r in some.values())}
        for part in ("train", "val", "test"):
            row[f"{part}_loss"] = fmean(r["scores"][part][0] for r in some.values())
            row[f"{part}_metric"] = fmean(r["scores"][part][1] for r in some.values())
        rows.append(row)
    if rows:
        best = by_rate[min(rows, key=lambda row: row["val_loss"])["rate"]]
        for row in rows:
            some = by_rate[row["rate"]]
            changes = [
                some[f]["scores"]["val"][0] - best[f]["scores"]["val"][0] for f in some if f in best
            ]
            row["error_to_best"] = (
                stdev(changes) / math.sqrt(len(changes)) if len(changes) > 1 else 0.0
            )
    return rows


def _others(a: Analysis, words: Words) -> list[tuple[str, str]]:
    out = []
    titles = {arm.name: arm.title for arm in a.arms}
    dropout = a.families["dropout"]
    for family, subject in (("rival", "Against the others"), ("pair", "Together with them")):
        if family not in a.families:
            continue
        other = a.families[family]
        loss, metric = versus(other, dropout, a.test_share)
        numbers = f"{words.metric} {words.value(other.metric.mean)} and {words.loss} {loss_text(other.loss.mean)}"
        if metric.shown():
            judged = f"that is {'better' if metric.shown() < 0 else 'worse'} than dropout alone ({words.range(metric)})"
        elif loss.shown():
            better = "better" if loss.shown() < 0 else "worse"
            judged = f"in {words.loss} that is {better} than dropout alone ({loss_range(loss)})"
        else:
            judged = f"no difference to dropout alone is shown ({words.range(metric)})"
        often = (
            f"most often {titles[other.arms[0][0]]}"
            if len(other.arms) > 1
            else titles[other.arms[0][0]]
        )
        out.append((subject, f"What validation chose ({often}) has {numbers}; {judged}."))
    return out


def _advice(a: Analysis, words: Words) -> list[tuple[str, str]]:
    setting = a.best_setting(("none", "dropout", "rival", "pair"))
    arm = next(x for x in a.arms if x.name == setting["arm"])
    why = "the lowest mean validation loss of all (policy.json)"
    if not math.isfinite(setting["scores"]["val"][0]):
        return [
            (
                "One setting to take",
                "None: every one diverged in some fold, so policy.json is not to be used.",
            )
        ]
    out = [("One setting to take", f"{arm.title}, {setting['label']}: {why}.")]
    if arm.extra is not None and a.none.extra is not None:
        out.append(
            (
                "On the data's own test set",
                f"Its {a.data['extra']:,} rows decided nothing: {words.metric} {words.value(arm.extra)} for {arm.title}, "
                f"{words.value(a.none.extra)} without a regularizer.",
            )
        )
    return out
