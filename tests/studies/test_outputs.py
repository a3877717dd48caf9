"""Verdict, report and policy: consistent with the records, escaped, self-contained."""

from __future__ import annotations

import copy
import html.parser
import json
import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import thinned
from thinned import InputError
from thinned.algebra import Drop
from thinned.studies import figures, outputs
from thinned.studies.analysis import analyze, policy
from thinned.studies.data import from_frame
from thinned.studies.design import LEVELS
from thinned.studies.measures import resolve
from thinned.studies.outputs import TITLES, finish
from thinned.studies.records import NUMBERS, StudyFolder, dump
from thinned.studies.report import render
from thinned.studies.run import run
from thinned.studies.verdict import MetricFormatter, verdict


def analysis_of(scores, folds=5, kind="classification", metric="error", constant=(2.3, 0.9)):
    """An analysis of given scores: ``scores[method]`` has (loss, metric) for each fold."""
    records = []
    for method, by_fold in scores.items():
        for fold, (loss, value) in enumerate(by_fold):
            recipe = {
                "drops": [None, {"law": {"bernoulli": {"p": 0.5}}}],
                "drop_connect": 0.0,
                "network": {"mlp": {}},
                "optimizer": {},
            }
            recipe |= {
                "l1": 0,
                "l2": 0,
                "max_norm": None,
                "label_smoothing": 0,
                "patience": None,
                "augment": {"noise": 0.0},
            }
            record = {
                "experiment": "methods",
                "method": method,
                "label": "p = 0.5",
                "fold": fold,
                "recipe": recipe,
                "chunk": "0000",
            }
            record |= {
                "epochs": 3,
                "best_epoch": 2,
                "diverged": None,
                "flags": [],
                "gap": 0.1,
                "seconds": 0.1,
            }
            record |= {
                "scores": dict.fromkeys(("train", "val", "test"), (loss, value)),
                "gradients": [[0.1, 0.2]] * 2,
            }
            records.append(record | {"history": {"train_loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}})
    header = {
        "data": {
            "name": "made",
            "kind": kind,
            "target": "y",
            "metric": "error",
            "train": 64,
            "val": 16,
            "test": 2000,
            "test_share": 0.25,
            "extra": 0,
            "ordered": False,
            "grouped": False,
        },
        "planned": 3,
        "settings": {"candidates": 1, "folds": folds, "repeats": 1},
        "methods": list(scores),
        "measure": resolve(metric, kind, 10).to_json(),
        "constant": [dict.fromkeys(("train", "val", "test"), constant)] * folds,
    }
    return analyze(header, records, [{"method": "none"}], {}, TITLES)


def around(center, spread=0.001):
    return [(center * 3 + spread * i, center + spread * i) for i in (-2, -1, 0, 1, 2)]


@pytest.mark.parametrize(
    ("dropout", "tone", "words"),
    [
        (0.01, "helps", "Dropout helps: error 1.0 % with dropout, 3.0 % without"),
        (0.05, "hurts", "Dropout hurts here: error 5.0 % with dropout, 3.0 % without"),
    ],
)
def test_verdict_of_a_clear_difference(dropout, tone, words):
    found = verdict(
        analysis_of(
            {"none": around(0.03), "dropout": [(3 * x, x) for _, x in around(dropout, 0.0012)]}
        )
    )
    assert found.tone == tone
    assert found.headline.startswith(words)
    assert "95 % interval of the difference" in found.headline


def test_verdict_of_no_difference():
    noisy = [(3 * x, x) for x in (0.02, 0.04, 0.025, 0.035, 0.03)]
    found = verdict(analysis_of({"none": around(0.03), "dropout": noisy}))
    assert found.tone == "unclear"
    assert found.headline.startswith("No difference is shown")
    assert found.sentences[0][0] == "How sure"


def test_verdict_of_better_probabilities_alone():
    none = [(0.30, 0.03), (0.31, 0.02), (0.29, 0.04), (0.30, 0.03), (0.31, 0.03)]
    dropout = [(0.10, 0.03), (0.12, 0.03), (0.09, 0.03), (0.11, 0.02), (0.10, 0.04)]
    scores = {"none": none, "dropout": dropout}
    found = verdict(analysis_of(scores, metric="log-loss"))
    assert found.tone == "helps"
    assert found.headline.startswith("Dropout helps: log-loss 0.104 with dropout, 0.302 without")
    described = dict(found.sentences)["Described, not tested"]
    assert described.startswith("error 3.0 % with dropout, 3.0 % without")
    # one primary measure decides: with the error rate, the same scores show nothing
    assert verdict(analysis_of(scores, metric="error")).tone == "unclear"


def test_families_are_chosen_by_validation_not_by_test():
    """A method with the best test score but a bad validation loss is not chosen."""
    a = analysis_of(
        {"none": around(0.03), "dropout": around(0.02), "gaussian_dropout": around(0.025)}
    )
    for r in a.records:
        if r["method"] == "gaussian_dropout":
            r["scores"]["test"] = (0.0, 0.0)
    again = analyze(a.header, a.records, [], None, TITLES)
    assert again.families["dropout"].methods == [("dropout", 5)]
    assert [r["method"] for r in again.best_setting(["dropout"])] == ["dropout"] * 5


def test_a_diverged_network_is_never_chosen():
    a = analysis_of({"none": around(0.03), "dropout": around(0.02), "l2": around(0.04)})
    for r in a.records:
        if r["method"] == "dropout":
            r["diverged"], r["scores"] = 1, dict.fromkeys(r["scores"], (np.nan, np.nan))
    again = analyze(a.header, a.records, [], None, TITLES)
    assert again.best_setting(["dropout", "other", "none"])[0]["method"] == "none"
    assert np.isnan(again.families["dropout"].metric.mean)
    assert MetricFormatter("classification").value(again.families["dropout"].metric.mean) == "–"
    verdict(again)


def with_gaps(data, rng, share):
    """Replace some numbers by null at random, as after an overflow, and make some very large."""
    if isinstance(data, dict):
        return {k: with_gaps(v, rng, share) for k, v in data.items()}
    if isinstance(data, list):
        return [with_gaps(v, rng, share) for v in data]
    chance = rng.random()
    return None if chance < share else data * 1e30 if chance < 1.1 * share else data


@pytest.mark.parametrize("share", [0.03, 1.0])
def test_report_of_what_diverged(tiny, tmp_path, share):
    """Where numbers are not finite, the report is still a valid page, and reports it."""
    rng = random.Random(0)
    shutil.copytree(tiny.folder, tmp_path, dirs_exist_ok=True)
    store = StudyFolder(tmp_path)
    for path in store.runs.glob("0*.json"):
        records = [
            r | {k: with_gaps(r[k], rng, share) for k in NUMBERS}
            for r in json.loads(path.read_text())
        ]
        dump(path, records)
    ensemble = json.loads((store.runs / "ensemble.json").read_text())
    ensemble["curve"]["scaled"] = [None, None]
    ensemble["exact"]["scaled"] = [None, None]
    ensemble["animation"]["frames"][3]["loss"] = None
    store.put("ensemble", ensemble)
    result = finish(tmp_path)
    text = result.report.read_text()
    parsed(text)
    assert "<td>diverged" in text
    assert not re.search(r"\b(nan|NaN|inf)\b", text)
    if share == 1:
        assert result.verdict.headline.startswith(
            "Training diverged without a regularizer and with dropout"
        )


def test_report_of_no_regularizer_alone(tiny):
    records = [r for r in tiny.analysis.records if r.get("method") == "none"]
    header = tiny.analysis.header | {"methods": ["none"]}
    text = " ".join(parsed(render(analyze(header, records, [], None, TITLES), [])).text)
    assert "This study has no method with dropout alone." in text


def test_versus_is_paired():
    a = analysis_of({"none": around(0.03), "dropout": around(0.02), "l2": around(0.025)})
    loss, metric = (a.compare(a.families["other"], a.families["dropout"], i) for i in (0, 1))
    assert metric.mean == pytest.approx(0.005)
    assert loss.mean == pytest.approx(0.015)
    # 10 of 2,000 rows in every fold: at least 10 rows disagree, so the variance is at least 10
    assert metric.spread == pytest.approx(np.sqrt(10) / 2000)


def test_policy_reads_back(tiny):
    chosen = json.loads((tiny.folder / "policy.json").read_text())
    assert chosen == json.loads(json.dumps(policy(tiny.analysis)))
    for site in chosen["sites"]:
        assert Drop.from_json(site["spec"]).rate > 0
    # the evidence is that of the recommended strength, computed here from the records
    a = tiny.analysis
    rows = {
        r["fold"]: r["scores"]["test"][0]
        for r in a.of_experiment("methods")
        if (r["method"], r["label"]) == (chosen["method"], chosen["strength"])
    }
    without = {r["fold"]: r["scores"]["test"][0] for r in a.baseline.chosen}
    evidence = chosen["evidence"]
    assert evidence["measure"] == "loss"
    assert evidence["test"] == pytest.approx(np.mean(list(rows.values())))
    d = np.array([rows[f] - without[f] for f in sorted(rows)])
    error = np.sqrt((1 / len(d) + a.data["test_share"]) * d.var(ddof=1))
    half = stats.t.ppf(0.975, len(d) - 1) * error
    assert evidence["difference"] == pytest.approx(d.mean())
    assert evidence["interval"] == pytest.approx([d.mean() - half, d.mean() + half], abs=1e-5)
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    counts = [
        int(site["where"].split()[-1])
        for site in chosen["sites"]
        if site["where"].startswith("hidden")
    ]
    for _ in range(max(counts, default=1) - 1):
        net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), *net)
    edits = thinned.apply(net, tiny.folder / "policy.json", torch.ones(2, 8))
    assert {edit.layer.base_spec for edit in edits.edits if hasattr(edit, "layer")} == {
        Drop.from_json(site["spec"])
        for site in chosen["sites"]
        if not site["where"].startswith("weights")
    }
    assert len(thinned.apply(net, tiny.folder / "policy.json", torch.ones(2, 8))) == 0


class Page(html.parser.HTMLParser):
    """Collects what a browser would fetch, and checks that tags are balanced."""

    VOID = frozenset({"meta", "br", "input", "link", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.ids, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parsed(text):
    page = Page()
    page.feed(text)
    assert page.open == []
    return page


def test_report_is_one_file(tiny):
    text = tiny.report.read_text()
    page = parsed(text)
    assert page.fetched == []
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", text)
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"#00000[1-9a-f]", text)  # every color became a variable
    shown = " ".join(" ".join(page.text).split())
    headings = """Every method, How much dropout, Fitting and overfitting, A rate for each layer,
        The ensemble inside,
        Rate and minibatch size, Rate and optimizer, Rate and amount of data, step by step,
        Cost of each method, Problems in training,
        How it was measured"""
    for heading in (h.strip() for h in headings.split(",")):
        assert heading in shown, heading
    assert tiny.verdict.headline in shown
    assert "thinned study --tiny" in shown
    assert f"Seed 0; thinned {thinned.__version__}" in shown
    frames = json.loads(re.search(r'id="frames">(.*?)</script>', text, re.S)[1])
    assert len(frames) == 60
    assert {len(layer) for f in frames for layer in f["kept"]} == {7, 5}


def test_report_is_drawn_again_to_the_same_page(tiny):
    before = tiny.report.read_text()
    assert finish(tiny.folder).report.read_text() == before


def test_report_of_less_is_still_a_page(tiny):
    """Without costs, ensemble or maps, their sections are absent."""
    a = tiny.analysis
    records = [r for r in a.records if r["experiment"] == "methods"]
    less = analyze(a.header, records, [], None, TITLES)
    assert less.methods
    text = " ".join(parsed(render(less, [])).text)
    assert "Cost of each method" not in text
    assert "The ensemble inside" not in text
    assert "Every method" in text


@pytest.mark.parametrize("target", ["<script>alert(1)</script>", "{{ 7 * 7 }}"])
def test_names_from_the_data_are_text(tmp_path, target):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"<img src=x onerror=alert(2)>": rng.choice(["a", "b<b>"], 120), "z": rng.normal(size=120)}
    )
    frame[target] = frame["z"] + rng.normal(size=120)
    settings = replace(
        LEVELS["quick"], folds=2, epochs=1, methods=("none", "dropout"), candidates=2
    )
    run(
        from_frame(frame, target, None),
        settings,
        tmp_path / "o",
        jobs=1,
        command="<script>command</script>",
    )
    text = finish(tmp_path / "o").report.read_text()
    assert "<script>alert" not in text
    assert "<script>command" not in text
    assert "<img" not in text
    if "7" in target:
        assert "{{ 7 * 7 }}" in " ".join(parsed(text).text)
    assert "RMSE" in text


def test_metric_formatter():
    percent, number = MetricFormatter("classification"), MetricFormatter("regression")
    assert (percent.value(0.0217), percent.change(-0.0123), percent.change(-0.0004)) == (
        "2.2 %",
        "−1.2",
        "0.0",
    )
    assert (number.value(3.14159), number.change(-0.5)) == ("3.14", "−0.50")
    assert [MetricFormatter("regression", t).value(t) for t in (0.0123, 5.29, 51_234.5)] == [
        "0.0123",
        "5.29",
        "51,234",
    ]
    assert percent.value(float("nan")) == "–"


def test_ensemble_averages_are_consistent(tiny):
    """For one softmax layer, the geometric mean over all 1,024 masks equals weight scaling; for
    k = 1 both means are equal.
    """
    exact = tiny.analysis.ensemble["exact"]
    assert len(exact["subnetworks"]) == 1024
    assert exact["distance"] < 1e-5
    np.testing.assert_allclose(exact["geometric"], exact["scaled"], rtol=1e-4)
    assert abs(exact["arithmetic"][0] - exact["scaled"][0]) > 1e-3
    curve = tiny.analysis.ensemble["curve"]
    np.testing.assert_allclose(curve["arithmetic"][0], curve["geometric"][0], rtol=1e-4)
    assert len(curve["arithmetic"]) == len(curve["samples"]) == 13


def test_costs_are_measured_for_every_method(tiny):
    costs = {c["method"]: c for c in tiny.analysis.costs}
    assert set(costs) == {a.name for a in tiny.analysis.methods}
    assert all(c["milliseconds"] > 0 for c in costs.values())
    assert costs["dropout"]["activation_bytes"] > costs["none"]["activation_bytes"]
    weights = 4 * (64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10)
    # Adam stores two more values for each weight
    assert 3 * weights <= costs["none"]["state_bytes"] <= 3 * weights + 100


def test_figures_have_descriptions(tiny):
    words = MetricFormatter("classification")
    drawn = [
        f(tiny.analysis, words)
        for f in (
            figures.rate,
            figures.learning,
            figures.size,
            figures.monte_carlo,
            figures.subnetworks,
        )
    ]
    for figure in [*drawn, figures.gradients(tiny.analysis)]:
        assert len(figure.alt) > 40
        assert figure.wide.startswith("<svg")
        assert figure.wide != figure.narrow


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"study.json does not exist; is .* the folder of a study"):
        finish(tmp_path)


def test_results_without_pyarrow_are_csv(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pd.DataFrame, "to_parquet", lambda *_, **__: (_ for _ in ()).throw(ImportError("pyarrow"))
    )
    path = outputs.write_table(tmp_path, copy.deepcopy(tiny.analysis.records), tiny.analysis.header)
    assert path.name == "results.csv"
    assert len(pd.read_csv(path)) == len(tiny.analysis.records)


def learning(pairs, spread=0.02, **data):
    """Three folds, (none, dropout) with the same ROC AUC in all, and errors over the test rows."""
    scores = {"none": [(0.6, x) for x, _ in pairs], "dropout": [(0.6, x) for _, x in pairs]}
    found = analysis_of(scores, len(pairs), metric="balanced-accuracy", constant=(0.69, 0.5))
    found.header["data"] |= data
    for c in (found.baseline, *found.families.values()):
        for r in c.chosen:
            change = [s - k for s, k in zip(r["scores"]["test"], (0.69, 0.5), strict=True)]
            r["against_constant"] = [[change[0], spread], [change[1], spread]]
    return found


PAIRS = [(0.78, 0.80), (0.83, 0.81), (0.80, 0.83)]


def test_three_folds_suffice_to_show_that_something_was_learned():
    found = learning(PAIRS, test=200)
    d = found.against_constant(found.baseline)
    assert d.p < 1e-6
    assert verdict(found).headline.startswith("No difference is shown: ")


def test_wide_errors_over_the_rows_show_nothing():
    assert verdict(learning(PAIRS, spread=0.5, test=200)).tone == "nothing"
    few = verdict(learning(PAIRS, spread=0.5, test=8))
    assert few.tone == "unclear"
    assert few.headline.startswith("Not enough rows to say whether anything was learned")


@pytest.mark.parametrize("data", [{"grouped": True}, {"ordered": True}])
def test_rows_that_depend_on_each_other_leave_only_the_folds(data):
    pairs = [(0.6, 0.62), (0.9, 0.88), (0.8, 0.83)]
    found = learning(pairs, test=200, **data)
    assert not found.by_test_rows(found.baseline)
    text = verdict(found)
    assert text.tone == "unclear"
    assert text.headline.startswith("Not enough folds to say whether anything was learned")


def test_nothing_is_better_than_the_constant_prediction():
    text = verdict(learning([(0.49, 0.48)] * 3, test=200))
    assert text.tone == "nothing"
    assert text.headline.startswith("Nothing was learned: no method is better")


def test_a_better_loss_and_a_worse_metric_are_mixed():
    rng = random.Random(0)

    def around_both(loss, error):
        return [(loss + rng.gauss(0, 1e-3), error + rng.gauss(0, 1e-3)) for _ in range(5)]

    found = analysis_of(
        {"none": around_both(0.2, 0.03), "dropout": around_both(0.1, 0.06)}, metric="log-loss"
    )
    text = verdict(found)
    assert text.tone == "mixed"
    assert text.headline.startswith("Mixed: with dropout the log-loss is better and the error")
