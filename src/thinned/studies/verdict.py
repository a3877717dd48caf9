"""The verdict of a study, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from .analysis import Analysis, is_sound
from .records import Record
from .stats import LEVEL, Difference, holm, repeats_to_decide, rows_to_decide

MIN_ROWS = 30  # below which a study that shows nothing says that its rows are too few
MIN_FOLDS = 10  # the same for folds, where they and not the rows decide


@dataclass
class Verdict:
    """The verdict of a study.

    Args:
        headline: One sentence.
        tone: "helps", "hurts", "mixed", "unclear", or "nothing" where nothing was learned.
        sentences: (subject, text) pairs that follow the headline.
    """

    headline: str
    tone: str
    sentences: list[tuple[str, str]]


class MetricFormatter:
    """Formats values of the loss and of the metric of a study.

    Error rates are in percent, and their differences in percentage points. Other metrics have the
    number of decimals that a value of the size of ``typical`` needs. Where an argument
    ``which`` is 0, the loss is formatted, otherwise the metric.
    """

    def __init__(
        self, kind: str, typical: float = 1.0, measure: Mapping[str, object] | None = None
    ) -> None:
        percent = kind == "classification"
        measure = measure or {"percent": percent, "title": "error" if percent else "RMSE"}
        self.percent = bool(measure["percent"])
        self.metric = str(measure["title"])
        self.lower = bool(measure.get("lower", True))
        self.primary = 0 if measure.get("on_loss") else 1
        self.loss = "log-loss" if percent else "squared error"
        self.constant = "class frequencies" if percent else "mean of the target"
        self.unit = " percentage points" if self.percent else ""  # of differences
        typical = abs(typical)
        size = math.floor(math.log10(typical)) if typical > 0 and math.isfinite(typical) else 0
        self.decimals = 1 if self.percent else max(0, 2 - size)

    @classmethod
    def of(cls, a: Analysis) -> MetricFormatter:
        """The formatter of a study."""
        return cls(a.data["kind"], a.baseline.metric.mean, a.measure)

    def name(self, which: int) -> str:
        """The name of a measure."""
        return self.metric if which else self.loss

    def value(self, x: float, which: int = 1) -> str:
        """A value; a dash where it is not finite."""
        if not which:
            return loss_text(x)
        if not math.isfinite(x):
            return "–"
        return f"{100 * x:.1f} %" if self.percent else _signed(x, self.decimals, "")

    def change(self, x: float, which: int = 1, decimals: int | None = None) -> str:
        """A signed difference, without its unit."""
        if not math.isfinite(x):
            return "–"
        if decimals is None:
            decimals = self.decimals if which else significant(x)
        return _signed(100 * x if self.percent and which else x, decimals)

    def range(self, d: Difference, which: int = 1) -> str:
        """The 95 % interval of a difference, with its unit."""
        return self.ends(d.low, d.high, which)

    def ends(self, low: float, high: float, which: int = 1) -> str:
        """An interval, with its unit; with so many decimals that its ends differ."""
        if math.isnan(low):
            return "unknown"
        width = (high - low) * (100 if self.percent and which else 1)
        decimals = significant(width / 2, 1)
        decimals = max(decimals, self.decimals) if which else decimals + 1
        texts = (self.change(x, which, decimals) for x in (low, high))
        return f"{' to '.join(texts)}{self.unit if which else ''}"


def significant(x: float, digits: int = 3, most: int = 12) -> int:
    """The number of decimals that shows ``digits`` significant digits of ``x``."""
    size = math.floor(math.log10(abs(x))) if x and math.isfinite(x) else 0
    return min(max(digits - 1 - size, 0), most)


def _signed(x: float, decimals: int, sign: str = "+") -> str:
    text = f"{x:{sign},.{decimals}f}"
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def loss_text(x: float) -> str:
    """A loss with three significant digits; a dash where it is not finite."""
    if not math.isfinite(x):
        return "–"
    text = f"{x:.2e}" if 0 < abs(x) < 1e-6 else f"{x:,.{significant(x)}f}"
    return text.replace("-", "−") if x < 0 else text


def verdict(a: Analysis) -> Verdict:
    """The verdict of the study on dropout for its data."""
    formatter = MetricFormatter.of(a)
    if "dropout" not in a.families:
        return Verdict(
            "This study has no method with dropout alone.",
            "unclear",
            [*_baseline(a, formatter), *_advice(a, formatter)],
        )
    headline, tone = _headline(a, formatter)
    sentences = _baseline(a, formatter)
    if any(math.isnan(c.value.mean) for c in (a.families["dropout"], a.baseline)):
        return Verdict(headline, tone, [*sentences, *_diverged(a), *_advice(a, formatter)])
    if tone == "unclear":
        sentences = [*_power(a, formatter), *sentences]
    sentences += _described(a, formatter)
    sentences += [*_diverged(a), *_which(a), *_how_much(a, formatter), *_others(a, formatter)]
    return Verdict(headline, tone, [*sentences, *_advice(a, formatter)])


def learned(a: Analysis) -> dict[str, float]:
    """For each family, the p value of its being better than the constant prediction.

    Corrected for the number of families (Holm); 1 where its mean is not better.
    """
    assert a.constant is not None
    families = {"none": a.baseline, **a.families}
    changes = [a.against_constant(c) for c in families.values()]
    corrected = holm([d.p for d in changes])
    better = [(d.mean < 0) == (not a.primary or a.measure["lower"]) for d in changes]
    return {
        name: p if good and not math.isnan(p) else 1.0
        for name, p, good in zip(families, corrected, better, strict=True)
    }


def _too_few(a: Analysis) -> str | None:
    """What a study has too few of to distinguish its methods from the constant prediction."""
    if a.test_rows < MIN_ROWS:
        return "rows"
    assert a.constant is not None
    sign = 1 if not a.primary or a.measure["lower"] else -1
    for c in (a.baseline, *a.families.values()):
        d = a.against_constant(c)
        every = all(
            sign * (r["scores"]["test"][a.primary] - s["scores"]["test"][a.primary]) < 0
            for r, s in zip(c.chosen, a.constant.chosen, strict=True)
        )
        if not a.by_test_rows(c) and every and d.count < MIN_FOLDS:
            return "folds"
    return None


def _headline(a: Analysis, formatter: MetricFormatter) -> tuple[str, str]:
    dropout, none, constant = a.families["dropout"], a.baseline, a.constant
    assert constant is not None
    which, alpha = a.primary, 1 - LEVEL
    diverged = [
        name
        for name, c in (("without a regularizer", none), ("with dropout", dropout))
        if math.isnan(c.value.mean)
    ]
    if diverged:
        return (
            f"Training diverged {' and '.join(diverged)}, so there is nothing to compare; try a "
            "smaller --lr.",
            "unclear",
        )
    values = [formatter.value(c.value.mean, which) for c in (dropout, none, constant)]
    numbers = f"{formatter.name(which)} {values[0]} with dropout, {values[1]} without"
    interval = f"95 % interval of the difference {formatter.range(dropout.change, which)}"
    if math.isnan(dropout.change.low):
        return (
            f"{numbers[0].upper()}{numbers[1:]}; one fold alone cannot show whether that is "
            "chance.",
            "unclear",
        )
    ps = learned(a)
    if not any(p < alpha for p in ps.values()):
        families = [none, *a.families.values()]
        direction = 1 if not which or a.measure["lower"] else -1
        some = any(direction * (c.value.mean - constant.value.mean) < 0 for c in families)
        few = _too_few(a) if some else None
        if few:
            return (
                f"Not enough {few} to say whether anything was learned: {numbers}, {values[2]} for "
                f"the constant prediction ({constant.label}).",
                "unclear",
            )
        claim = (
            "Nothing is shown to be learned: no difference from the constant prediction "
            f"({constant.label}) is shown"
            if some
            else f"Nothing was learned: no method is better than the constant prediction "
            f"({constant.label})"
        )
        return f"{claim}; {numbers}, {values[2]} for the constant prediction.", "nothing"
    direction = a.better(dropout.change)
    other = 1 - which
    against = a.better((dropout.loss_change, dropout.metric_change)[other], other) == -direction
    if direction and against:
        words = ("better", "worse") if direction > 0 else ("worse", "better")
        described = (dropout.loss, dropout.metric)[other], (none.loss, none.metric)[other]
        pair = " with dropout, ".join(formatter.value(d.mean, other) for d in described)
        return (
            f"Mixed: with dropout the {formatter.name(which)} is {words[0]} and the "
            f"{formatter.name(other)} {words[1]}: {numbers} ({interval}); "
            f"{formatter.name(other)} {pair} without.",
            "mixed",
        )
    if direction < 0:
        return f"Dropout hurts here: {numbers} ({interval}).", "hurts"
    if direction > 0:
        # not corrected: "helps" needs both this comparison and the one with no regularizer
        change = a.against_constant(dropout)
        if a.better(change) <= 0:
            return (
                f"Dropout is better than no regularizer, but not shown to be better than the "
                f"constant prediction ({constant.label}, {values[2]}): {numbers} ({interval}).",
                "unclear",
            )
        return f"Dropout helps: {numbers} ({interval}).", "helps"
    return f"No difference is shown: {numbers} ({interval}).", "unclear"


def _baseline(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    """What the constant prediction scores."""
    assert a.constant is not None
    return [
        (
            "Constant prediction",
            f"Without looking at the columns ({a.constant.label} of the training rows): "
            f"{formatter.metric} {formatter.value(a.constant.metric.mean)}, {formatter.loss} "
            f"{loss_text(a.constant.loss.mean)}.",
        )
    ]


def _power(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    """The smallest difference that a study of this size can detect, and what would decide."""
    d, which = a.families["dropout"].change, a.primary
    half = (d.high - d.low) / 2
    scale = 100 if formatter.percent and which else 1
    unit = formatter.unit if which else ""
    text = (
        f"With these rows and folds, a difference in {formatter.name(which)} below about "
        f"{scale * half:.2g}{unit} cannot be distinguished from chance."
    )
    if d.direction():  # the difference is shown; what is not is that anything was learned
        return [("How sure", text)]
    settings = a.header["settings"]
    repeats = None if a.data["ordered"] else repeats_to_decide(d, settings["folds"])
    rows = rows_to_decide(d)
    if repeats is not None:
        text += (
            f" If the difference remains as it is, --repeats {repeats} would show it (at present "
            f"{settings['repeats']})."
        )
    elif rows < 100:
        text += (
            " No number of repetitions would show the difference seen here, because repeated folds "
            f"share their rows; about {rows:.1f} times as many rows would."
        )
    else:
        text += " The difference seen here is too small for more repetitions or rows to show it."
    return [("How sure", text)]


def _described(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    """The measure that was not chosen as the primary one; it is described, not tested."""
    other = 1 - a.primary
    dropout, none = a.families["dropout"], a.baseline
    if a.data["metric"] != "rmse":  # which is the root of the loss
        pair = [(c.loss, c.metric)[other].mean for c in (dropout, none)]
        change = (dropout.loss_change, dropout.metric_change)[other]
        return [
            (
                "Described, not tested",
                f"{formatter.name(other)} {formatter.value(pair[0], other)} with dropout, "
                f"{formatter.value(pair[1], other)} without; interval of the difference "
                f"{formatter.range(change, other)}. Validation and the verdict use the "
                f"{formatter.name(a.primary)} (--metric).",
            )
        ]
    return []


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
    dropout, which = a.families["dropout"], a.primary
    families = [
        (subject, a.families[family])
        for family, subject in (("other", "Other regularizers"), ("combination", "Combinations"))
        if family in a.families
    ]
    changes = [a.compare(other, dropout) for _, other in families]
    corrected = holm([d.p for d in changes])
    for (subject, other), change, p in zip(families, changes, corrected, strict=True):
        numbers = (
            f"{formatter.metric} {formatter.value(other.metric.mean)} and {formatter.loss} "
            f"{loss_text(other.loss.mean)}"
        )
        interval = formatter.range(change, which)
        if p < 1 - LEVEL:
            better = "better" if a.better(change) > 0 else "worse"
            comparison = (
                f"in {formatter.name(which)} that is {better} than dropout alone ({interval})"
            )
        else:
            comparison = (
                f"in {formatter.name(which)} no difference from dropout alone is shown ({interval})"
            )
        often = (
            f"most often {titles[other.methods[0][0]]}"
            if len(other.methods) > 1
            else titles[other.methods[0][0]]
        )
        out.append((subject, f"What validation chose ({often}) has {numbers}; {comparison}."))
    return out


def _advice(a: Analysis, formatter: MetricFormatter) -> list[tuple[str, str]]:
    setting = a.best_setting(("none", "dropout", "other", "combination"))[0]
    method = next(x for x in a.methods if x.name == setting["method"])
    direction = "lowest" if not a.primary or a.measure["lower"] else "highest"
    why = f"the {direction} mean validation {formatter.name(a.primary)} of all (policy.json)"
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
