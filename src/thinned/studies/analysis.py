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
from .stats import Difference, holm, interval, paired

POLICY_FORMAT = 2  # of policy.json
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
        chosen: For each fold, the record of the candidate with the lowest validation loss.
        loss: The mean test loss of the chosen candidates, with its interval.
        metric: The mean test metric, with its interval.
        loss_change: The difference of the test loss to no regularizer.
        metric_change: The difference of the test metric to no regularizer.
        loss_p: The p value of ``loss_change``, corrected for the number of methods.
        metric_p: The p value of ``metric_change``, corrected for the number of methods.
    """

    name: str
    title: str
    family: str
    chosen: list[Record]
    loss: Difference
    metric: Difference
    loss_change: Difference
    metric_change: Difference
    loss_p: float = math.nan
    metric_p: float = math.nan

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
        """A sort key: best metric first, methods without a score last."""
        return math.isnan(self.metric.mean), self.metric.mean, self.loss.mean

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
        methods: What validation chose for each method.
        families: What validation chose for each family.
    """

    header: Record
    records: list[Record]
    costs: list[Record]
    ensemble: Record | None
    folds: list[int]
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
        """Test rows of a fold divided by its training rows."""
        return self.data["test"] / max(self.data["train"] + self.data["val"], 1)

    def best(self) -> Choice:
        """The method with the lowest mean validation loss of its chosen candidates."""
        return min(self.methods, key=lambda a: fmean(_loss(r) for r in a.chosen))

    def best_setting(self, families: Sequence[str]) -> Record:
        """A record of the candidate with the lowest mean validation loss over the folds."""
        found: dict[tuple[str, str], list[Record]] = {}
        members = {a.name for a in self.methods if a.family in families}
        for r in self.records:
            if r["experiment"] == "methods" and r["method"] in members and r["fold"] in self.folds:
                found.setdefault((r["method"], r["label"]), []).append(r)
        return min(found.values(), key=lambda rs: fmean(_loss(r) for r in rs))[0]

    def of_experiment(self, experiment: str) -> list[Record]:
        """The records of one experiment."""
        return [r for r in self.records if r["experiment"] == experiment]


def _loss(r: Record) -> float:
    """The validation loss; infinite for a network that diverged, so that it is never chosen."""
    value = r["scores"]["val"][0]
    return float(value) if math.isfinite(value) and r["diverged"] is None else math.inf


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
    names = list(dict.fromkeys(r["method"] for r in methods))
    counts = Counter((r["method"], r["fold"]) for r in methods)
    most = {name: max(counts[name, f] for method, f in counts if method == name) for name in names}
    folds = [
        f
        for f in sorted({r["fold"] for r in methods})
        if all(counts[name, f] == most[name] for name in names)
    ]
    out = Analysis(header, records, costs, ensemble, folds)
    if not folds or "none" not in names:
        return out

    def choose(name: str, title: str, family: str, members: set[str]) -> Choice:
        chosen = [
            min((r for r in methods if r["fold"] == f and r["method"] in members), key=_loss)
            for f in folds
        ]
        scores = [[_score(r, i) for r in chosen] for i in (0, 1)]
        base = [[_score(r, i) for r in baseline] for i in (0, 1)]
        share = out.test_share
        loss, metric = (interval(s, share) for s in scores)
        loss_change, metric_change = (
            paired(a, b, share) for a, b in zip(scores, base, strict=True)
        )
        return Choice(
            name=name,
            title=title,
            family=family,
            chosen=chosen,
            loss=loss,
            metric=metric,
            loss_change=loss_change,
            metric_change=metric_change,
        )

    baseline = [
        min((r for r in methods if r["fold"] == f and r["method"] == "none"), key=_loss)
        for f in folds
    ]
    out.methods = [choose(name, *titles[name], {name}) for name in names]
    others = [a for a in out.methods if a.name != "none"]
    for attribute in ("loss", "metric"):
        for a, p in zip(
            others, holm([getattr(a, f"{attribute}_change").p for a in others]), strict=True
        ):
            setattr(a, f"{attribute}_p", p)
    for family, title in FAMILIES.items():
        members = {a.name for a in out.methods if a.family == family}
        if members:
            out.families[family] = choose(family, title, family, members)
    return out


def compare_choices(a: Choice, b: Choice, share: float) -> tuple[Difference, Difference]:
    """Loss and metric of ``a`` minus those of ``b``, paired by fold."""
    pairs = [([_score(r, i) for r in a.chosen], [_score(r, i) for r in b.chosen]) for i in (0, 1)]
    return paired(*pairs[0], share), paired(*pairs[1], share)


def policy(analysis: Analysis) -> dict[str, Any]:
    """The recommended setting as JSON-like data, for :func:`thinned.apply`.

    It has the dropout specs with their positions ("sites"), the other regularizers of the setting
    ("companions"), and the evidence.
    """
    setting = analysis.best_setting(("none", "dropout", "other", "combination"))
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
    method = next(a for a in analysis.methods if a.name == setting["method"])
    return {
        "format": POLICY_FORMAT,
        "method": setting["method"],
        "strength": setting["label"],
        "sites": sites,
        "companions": companions,
        "network": recipe["network"],
        "optimizer": recipe["optimizer"],
        "evidence": {
            "chosen_by": "lowest mean validation loss over the folds",
            "folds": len(analysis.folds),
            "metric": analysis.data["metric"],
            "test": method.metric.mean,
            "without": analysis.baseline.metric.mean,
            "difference": method.metric_change.mean,
            "interval": [method.metric_change.low, method.metric_change.high],
        },
    }
