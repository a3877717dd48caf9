"""From records to comparisons: what each method chose and scored, with intervals and p values.

Its input and its output are JSON-like data: it needs neither the networks nor the training code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from .records import Record
from .stats import LEVEL, Difference, holm, holm_levels, interval, paired, pooled

POLICY_FORMAT = 2  # of policy.json
CONSTANT = "constant"
LOSS = "loss"
FAMILIES = {
    "dropout": "dropout of any kind",
    "other": "the other regularizers",
    "combination": "dropout and another regularizer",
}


def is_sound(r: Record) -> bool:
    """Whether the network did not diverge and all of its scores are finite."""
    return r["diverged"] is None and all(
        math.isfinite(value) for score in r["scores"].values() for value in score
    )


@dataclass(kw_only=True)
class Choice:
    """What validation chose for a method or a family of methods, with its test scores.

    Args:
        name: The name of the method or family.
        title: The name in reports.
        family: The family.
        chosen: For each fold, the record of the candidate that validation chose.
        loss: The mean test loss of the chosen candidates, with its interval.
        metric: The mean test metric, with its interval.
        loss_change: The difference of the test loss to no regularizer.
        metric_change: The difference of the test metric to no regularizer.
        lower: Whether lower values of the metric are better.
        primary: 0 where the loss is the primary measure, 1 where the metric is.
        p: The p value of the difference in the primary measure, corrected for the number of
            methods; NaN where it was not tested.
        level: The level of the interval that agrees with ``p``.
    """

    name: str
    title: str
    family: str
    chosen: list[Record]
    loss: Difference
    metric: Difference
    loss_change: Difference
    metric_change: Difference
    lower: bool = True
    primary: int = 0
    p: float = math.nan
    level: float = LEVEL

    @property
    def value(self) -> Difference:
        """The primary measure."""
        return self.metric if self.primary else self.loss

    @property
    def change(self) -> Difference:
        """The difference of the primary measure to no regularizer."""
        return self.metric_change if self.primary else self.loss_change

    @property
    def ends(self) -> tuple[float, float]:
        """The interval of ``change`` that leaves out 0 exactly where ``p`` is below 0.05."""
        return self.change.at_level(self.level)

    @property
    def label(self) -> str:
        """The strength chosen most often, with the number of folds unless all chose it."""
        counts = Counter(r["label"] for r in self.chosen)
        (label, times), *others = counts.most_common()
        return label if not others else f"{label} ({times} of {len(self.chosen)} folds)"

    @property
    def methods(self) -> list[tuple[str, int]]:
        """The methods chosen, as (name, number of folds), most frequent first."""
        return Counter(r["method"] for r in self.chosen).most_common()

    @property
    def extra(self) -> float | None:
        """The mean metric on the separate test set of the data; None where there is none."""
        values = [r["scores"]["extra"][1] for r in self.chosen if "extra" in r["scores"]]
        return fmean(values) if values else None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """A sort key: best primary measure first, methods without a score last."""
        sign = 1 if self.lower or not self.primary else -1
        second = (self.metric if self.lower else self.loss) if not self.primary else self.loss
        return math.isnan(self.value.mean), sign * self.value.mean, second.mean

    @property
    def epochs(self) -> float:
        """The mean number of epochs that the chosen candidates trained."""
        return fmean(r["epochs"] for r in self.chosen)


@dataclass
class Analysis:
    """The records of a study and the comparisons made from them.

    Args:
        header: The settings, the data and the versions.
        records: One record for each network and each of its uses in the study.
        costs: The cost of each method; empty before it is measured.
        ensemble: The records behind the section on ensembles; None before they are made.
        folds: The folds that are complete.
        constant: The constant prediction: class frequencies, or the mean. None without folds.
        methods: What validation chose for each method.
        families: What validation chose for each family.
    """

    header: Record
    records: list[Record]
    costs: list[Record]
    ensemble: Record | None
    folds: list[int]
    constant: Choice | None = None
    methods: list[Choice] = field(default_factory=list)
    families: dict[str, Choice] = field(default_factory=dict)

    @property
    def baseline(self) -> Choice:
        """The method without a regularizer."""
        return next(a for a in self.methods if a.name == "none")

    @property
    def data(self) -> Record:
        """The description of the data in the header."""
        return self.header["data"]

    @property
    def lr(self) -> float:
        """The learning rate of all methods except the two that choose their own."""
        own_rate = ("none", "batch_norm")
        common = (
            r
            for r in self.records
            if r["experiment"] in ("methods", "rate") and r.get("method") not in own_rate
        )
        found = next(common, None)
        return float(found["recipe"]["optimizer"]["lr"]) if found else math.nan

    @property
    def parts_left(self) -> int:
        """The number of parts of the study that have not run."""
        done = (
            len({r["chunk"] for r in self.records}) + bool(self.costs) + (self.ensemble is not None)
        )
        return int(self.header["planned"]) - done

    @property
    def test_share(self) -> float:
        """Test rows of a fold divided by its training rows, mean of the folds."""
        return float(self.data["test_share"])

    @property
    def measure(self) -> Record:
        """The measure of the study, as its JSON-like data."""
        measure: Record = self.header["measure"]
        return measure

    @property
    def primary(self) -> int:
        """0 where the loss is the primary measure, 1 where the metric is."""
        return 0 if self.measure["on_loss"] else 1

    def row(self, which: int) -> float:
        """How much one test row changes a measure that counts rows; 0 for others."""
        counts = which == 1 and self.measure["by_rows"]
        return 1 / max(self.data["test"], 1) if counts else 0.0

    def validation(self, r: Record) -> float:
        """What validation chooses by: the primary measure, lower is better.

        Infinite for a network that diverged, so that it is never chosen.
        """
        value = r["scores"]["val"][self.primary]
        if not math.isfinite(value) or r["diverged"] is not None:
            return math.inf
        return float(value if self.primary == 0 or self.measure["lower"] else -value)

    def better(self, d: Difference, which: int | None = None) -> int:
        """1 if the first of a difference is shown to be better, -1 if worse, 0 if neither."""
        which = self.primary if which is None else which
        return -d.direction() if which == 0 or self.measure["lower"] else d.direction()

    def compare(self, first: Choice, second: Choice, which: int | None = None) -> Difference:
        """The primary (or another) measure of ``first`` minus that of ``second``, by fold."""
        which = self.primary if which is None else which
        return paired(
            [_score(r, which) for r in first.chosen],
            [_score(r, which) for r in second.chosen],
            self.test_share,
            self.row(which),
        )

    def by_test_rows(self, c: Choice) -> bool:
        """Whether test rows can show that a choice is better than the constant prediction.

        They have to be independent, which rows of groups and of ordered times are not, and the
        measure has to have a standard error over rows in every fold.
        """
        independent = not (self.data["grouped"] or self.data["ordered"])
        return independent and all(
            math.isfinite(error)
            for r in c.chosen
            for _, error in (r.get("against_constant", ((0, math.nan),) * 2)[self.primary],)
        )

    def against_constant(self, c: Choice) -> Difference:
        """The primary measure of a choice minus that of the constant prediction.

        Tested on the test rows where that is possible, otherwise on the folds.
        """
        assert self.constant is not None
        if not self.by_test_rows(c):
            return self.compare(c, self.constant)
        pairs = [r["against_constant"][self.primary] for r in c.chosen]
        return pooled(
            [mean for mean, _ in pairs],
            [error for _, error in pairs],
            self.header["settings"]["repeats"],
            self.test_rows,
        )

    @property
    def test_rows(self) -> int:
        """The number of test rows of one repetition."""
        return len(self.folds) * int(self.data["test"]) // int(self.header["settings"]["repeats"])

    def best(self) -> Choice:
        """The method with the best mean validation of its chosen candidates."""
        return min(self.methods, key=lambda a: fmean(self.validation(r) for r in a.chosen))

    def best_setting(self, families: Sequence[str]) -> list[Record]:
        """The records of the candidate with the best mean validation, one for each fold."""
        found: dict[tuple[str, str], list[Record]] = {}
        members = {a.name for a in self.methods if a.family in families}
        for r in self.records:
            if r["experiment"] == "methods" and r["method"] in members and r["fold"] in self.folds:
                found.setdefault((r["method"], r["label"]), []).append(r)
        # a label that some folds do not have, such as one that depends on their rows, is not a
        # setting of the study
        whole = [rs for rs in found.values() if len({r["fold"] for r in rs}) == len(self.folds)]
        rows = min(
            whole or list(found.values()), key=lambda rs: fmean(self.validation(r) for r in rs)
        )
        by_fold = {r["fold"]: r for r in rows}
        return [by_fold[f] for f in self.folds if f in by_fold]

    def of_experiment(self, experiment: str) -> list[Record]:
        """The records of one experiment."""
        return [r for r in self.records if r["experiment"] == experiment]


def _score(r: Record, which: int) -> float:
    return float(r["scores"]["test"][which])


def analyze(
    header: Record,
    records: list[Record],
    costs: list[Record],
    ensemble: Record | None,
    titles: dict[str, tuple[str, str]],
) -> Analysis:
    """Compare the methods on the complete folds. ``titles``: (title, family) of each method."""
    methods = [r for r in records if r["experiment"] == "methods"]
    names: list[str] = header["methods"]
    counts = Counter((r["method"], r["fold"]) for r in methods)
    planned = header["settings"]["candidates"]
    folds = [
        f
        for f in sorted({r["fold"] for r in methods})
        if all(counts[name, f] == planned for name in names)
    ]
    out = Analysis(header, records, costs, ensemble, folds)
    if not folds:
        return out
    share = out.test_share

    def choice(name: str, title: str, family: str, chosen: list[Record]) -> Choice:
        changes = []
        for i in (0, 1):
            scores, base = ([_score(r, i) for r in rows] for rows in (chosen, baseline))
            changes.append(
                (interval(scores, share, out.row(i)), paired(scores, base, share, out.row(i)))
            )
        (loss, loss_change), (metric, metric_change) = changes
        return Choice(
            name=name,
            title=title,
            family=family,
            chosen=chosen,
            loss=loss,
            metric=metric,
            loss_change=loss_change,
            metric_change=metric_change,
            lower=out.measure["lower"],
            primary=out.primary,
        )

    def choose(members: set[str]) -> list[Record]:
        return [
            min(
                (r for r in methods if r["fold"] == f and r["method"] in members),
                key=out.validation,
            )
            for f in folds
        ]

    baseline = choose({"none"})
    out.methods = [choice(name, *titles[name], choose({name})) for name in names]
    label = "class frequencies" if out.data["kind"] == "classification" else "mean of the target"
    out.constant = choice(
        CONSTANT,
        "constant prediction",
        CONSTANT,
        [
            {
                "method": CONSTANT,
                "label": label,
                "fold": f,
                "epochs": 0,
                "diverged": None,
                "scores": header["constant"][f],
            }
            for f in folds
        ],
    )
    others = [a for a in out.methods if a.name != "none"]
    ps = [a.change.p for a in others]
    for a, p, level in zip(others, holm(ps), holm_levels(ps), strict=True):
        a.p, a.level = p, level
    for family, title in FAMILIES.items():
        members = {a.name for a in out.methods if a.family == family}
        if members:
            out.families[family] = choice(family, title, family, choose(members))
    return out


def policy(analysis: Analysis) -> dict[str, Any]:
    """The recommended setting as JSON-like data, for :func:`thinned.apply`.

    It has the dropout specs with their positions ("sites"), the other regularizers of the setting
    ("companions"), and the evidence.
    """
    records = analysis.best_setting(("none", "dropout", "other", "combination"))
    setting = records[0]
    recipe = setting["recipe"]
    count = max(len(recipe["drops"]) - 1, 1)
    sites = []
    for i, spec in enumerate(recipe["drops"]):
        if spec and next(iter(spec["law"].values())).get("p", 1) > 0:
            sites.append({"where": "input" if i == 0 else f"hidden {i} of {count}", "spec": spec})
    if recipe["drop_connect"]:
        sites.append(
            {
                "where": "weights of hidden layers",
                "spec": {
                    "law": {"bernoulli": {"p": recipe["drop_connect"]}},
                    "name": "drop_connect",
                },
            }
        )
    companions = {
        k: recipe[k] for k in ("l1", "l2", "max_norm", "label_smoothing", "patience") if recipe[k]
    }
    if any(recipe["augment"].values()):
        companions["augment"] = recipe["augment"]
    which = analysis.primary
    baseline = {r["fold"]: _score(r, which) for r in analysis.baseline.chosen}
    test, without = [_score(r, which) for r in records], [baseline[r["fold"]] for r in records]
    difference = paired(test, without, analysis.test_share, analysis.row(which))
    return {
        "format": POLICY_FORMAT,
        "method": setting["method"],
        "strength": setting["label"],
        "sites": sites,
        "companions": companions,
        "network": recipe["network"],
        "optimizer": recipe["optimizer"],
        "evidence": {
            # the validation rows of a fold are test rows of others, so the mean over the folds
            # saw every row, and the scores of this setting are slightly too good
            "chosen_by": "best mean validation over the folds",
            "folds": len(records),
            "measure": LOSS if which == 0 else analysis.data["metric"],
            "test": fmean(test),
            "without": fmean(without),
            "difference": difference.mean,
            "interval": [difference.low, difference.high],
            "p": difference.p,
        },
    }
