"""From records to comparisons: what each arm chose and scored, and what can be said about it. Plain
data in and out.
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

FAMILIES = {
    "dropout": "dropout, of any kind",
    "rival": "the other regularizers",
    "pair": "dropout with another",
}


def sound(r: Record) -> bool:
    """Did a network not diverge, and is every score of it a number?"""
    return r["diverged"] is None and all(
        math.isfinite(v) for pair in r["scores"].values() for v in pair
    )


@dataclass
class Choice:
    """What validation chose for an arm or a family, fold by fold."""

    name: str
    title: str
    family: str
    chosen: list[Record]
    loss: Difference  # the score itself, with its interval
    metric: Difference
    loss_change: Difference  # against no regularizer
    metric_change: Difference
    loss_p: float = math.nan  # corrected for the number of arms
    metric_p: float = math.nan

    @property
    def label(self) -> str:
        """The strength chosen most often, and in how many folds where not in all."""
        counts = Counter(r["label"] for r in self.chosen)
        (label, times), *others = counts.most_common()
        return label if not others else f"{label} ({times} of {len(self.chosen)} folds)"

    @property
    def arms(self) -> list[tuple[str, int]]:
        """For a family: the arms chosen, the most frequent first."""
        return Counter(r["arm"] for r in self.chosen).most_common()

    @property
    def extra(self) -> float | None:
        """The metric on the test set that came with the data."""
        values = [r["scores"]["extra"][1] for r in self.chosen if "extra" in r["scores"]]
        return fmean(values) if values else None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """To sort by: the best first, those without a score last."""
        return math.isnan(self.metric.mean), self.metric.mean, self.loss.mean

    @property
    def epochs(self) -> float:
        return fmean(r["epochs"] for r in self.chosen)


@dataclass
class Analysis:
    """A study, read."""

    header: Record
    records: list[Record]
    costs: list[Record]
    ensemble: Record | None
    folds: list[int]
    arms: list[Choice] = field(default_factory=list)
    families: dict[str, Choice] = field(default_factory=dict)

    @property
    def none(self) -> Choice:
        return next(a for a in self.arms if a.name == "none")

    @property
    def data(self) -> Record:
        return self.header["data"]

    @property
    def lr(self) -> float:
        """The learning rate of all arms but the two that try their own."""
        settled = (
            r
            for r in self.records
            if r["experiment"] in ("arms", "rate") and r.get("arm") not in ("none", "bn")
        )
        found = next(settled, None)
        return float(found["recipe"]["optimizer"]["lr"]) if found else math.nan

    @property
    def left(self) -> int:
        """How many parts of the study are not done."""
        done = (
            len({r["chunk"] for r in self.records}) + bool(self.costs) + (self.ensemble is not None)
        )
        return int(self.header["planned"]) - done

    @property
    def test_share(self) -> float:
        """Test rows / training rows of a fold."""
        return self.data["test"] / max(self.data["train"] + self.data["val"], 1)

    def best(self) -> Choice:
        """The arm with the lowest mean validation loss of what it chose: no test row had a say."""
        return min(self.arms, key=lambda a: fmean(_loss(r) for r in a.chosen))

    def best_setting(self, families: Sequence[str]) -> Record:
        """The one setting (arm and strength) with the lowest mean validation loss over the folds."""
        found: dict[tuple[str, str], list[Record]] = {}
        members = {a.name for a in self.arms if a.family in families}
        for r in self.records:
            if r["experiment"] == "arms" and r["arm"] in members and r["fold"] in self.folds:
                found.setdefault((r["arm"], r["label"]), []).append(r)
        return min(found.values(), key=lambda rs: fmean(_loss(r) for r in rs))[0]

    def of(self, experiment: str) -> list[Record]:
        return [r for r in self.records if r["experiment"] == experiment]


def _loss(r: Record) -> float:
    """Validation loss, where a network that diverged has lost."""
    value = r["scores"]["val"][0]
    return float(value) if math.isfinite(value) and r["diverged"] is None else math.inf


def _score(r: Record, which: int) -> float:
    return float(r["scores"]["test"][which])


def analyse(
    header: Record,
    records: list[Record],
    costs: list[Record],
    ensemble: Record | None,
    titles: dict[str, tuple[str, str]],
) -> Analysis:
    """Compare arms on the folds that are complete. ``titles``: title and family of each arm."""
    arms = [r for r in records if r["experiment"] == "arms"]
    names = list(dict.fromkeys(r["arm"] for r in arms))
    counts = Counter((r["arm"], r["fold"]) for r in arms)
    most = {name: max(counts[name, f] for a, f in counts if a == name) for name in names}
    folds = [
        f
        for f in sorted({r["fold"] for r in arms})
        if all(counts[name, f] == most[name] for name in names)
    ]
    out = Analysis(header, records, costs, ensemble, folds)
    if not folds or "none" not in names:
        return out

    def choose(name: str, title: str, family: str, members: set[str]) -> Choice:
        chosen = [
            min((r for r in arms if r["fold"] == f and r["arm"] in members), key=_loss)
            for f in folds
        ]
        scores = [[_score(r, i) for r in chosen] for i in (0, 1)]
        base = [[_score(r, i) for r in nothing] for i in (0, 1)]
        share = out.test_share
        loss, metric = (interval(s, share) for s in scores)
        loss_change, metric_change = (
            paired(a, b, share) for a, b in zip(scores, base, strict=True)
        )
        return Choice(name, title, family, chosen, loss, metric, loss_change, metric_change)

    nothing = [
        min((r for r in arms if r["fold"] == f and r["arm"] == "none"), key=_loss) for f in folds
    ]
    out.arms = [choose(name, *titles[name], {name}) for name in names]
    others = [a for a in out.arms if a.name != "none"]
    for attribute in ("loss", "metric"):
        for a, p in zip(
            others, holm([getattr(a, f"{attribute}_change").p for a in others]), strict=True
        ):
            setattr(a, f"{attribute}_p", p)
    for family, title in FAMILIES.items():
        members = {a.name for a in out.arms if a.family == family}
        if members:
            out.families[family] = choose(family, title, family, members)
    return out


def versus(a: Choice, b: Choice, share: float) -> tuple[Difference, Difference]:
    """Loss and metric of ``a`` less those of ``b``, paired by fold."""
    pairs = [([_score(r, i) for r in a.chosen], [_score(r, i) for r in b.chosen]) for i in (0, 1)]
    return paired(*pairs[0], share), paired(*pairs[1], share)


def policy(analysis: Analysis) -> dict[str, Any]:
    """The recommended setting as data: where to drop what, what goes with it, and the evidence."""
    setting = analysis.best_setting(("none", "dropout", "rival", "pair"))
    recipe = setting["recipe"]
    count = max(len(recipe["drops"]) - 1, 1)
    sites = []
    for i, spec in enumerate(recipe["drops"]):
        if spec and next(iter(spec["law"].values())).get("p", 1) > 0:
            sites.append({"where": "input" if i == 0 else f"hidden {i} of {count}", "spec": spec})
    if recipe["connect"]:
        sites.append(
            {
                "where": "weights of hidden layers",
                "spec": {"law": {"bernoulli": {"p": recipe["connect"]}}, "name": "drop_connect"},
            }
        )
    companions = {
        k: recipe[k] for k in ("l1", "l2", "max_norm", "label_smoothing", "patience") if recipe[k]
    }
    if any(recipe["augment"].values()):
        companions["augment"] = recipe["augment"]
    arm = next(a for a in analysis.arms if a.name == setting["arm"])
    return {
        "format": 1,
        "arm": setting["arm"],
        "strength": setting["label"],
        "sites": sites,
        "companions": companions,
        "network": recipe["network"],
        "optimizer": recipe["optimizer"],
        "evidence": {
            "chosen_by": "lowest mean validation loss over the folds",
            "folds": len(analysis.folds),
            "metric": analysis.data["metric"],
            "test": arm.metric.mean,
            "without": analysis.none.metric.mean,
            "difference": arm.metric_change.mean,
            "interval": [arm.metric_change.low, arm.metric_change.high],
        },
    }
