"""What a study ends in: the table, the policy and the report, all from the records in its folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .._errors import InputError
from . import report
from .analysis import Analysis, analyse, policy
from .methods import ARMS
from .records import Record, Store, dump, write
from .verdict import Verdict, verdict

TITLES = {name: (arm.title, arm.family) for name, arm in ARMS.items()}


@dataclass
class Result:
    """A study that can be looked at. ``table``: one row a network. ``policy``: the recommended
    setting.
    """

    folder: Path
    analysis: Analysis
    verdict: Verdict
    policy: Record
    files: list[Path]

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def table(self) -> pd.DataFrame:
        return table(self.analysis.records, self.analysis.header)

    def __str__(self) -> str:
        return "\n".join(
            [
                self.verdict.headline,
                *(f"{subject}: {text}" for subject, text in self.verdict.sentences),
            ]
        )


def load(folder: Path) -> Analysis:
    """Read a study's records. Raises :class:`thinned.InputError` where there is none, or no fold is
    complete yet.
    """
    store = Store(folder)
    header = store.about()
    costs = store.get("costs") if store.has("costs") else []
    ensemble = store.get("ensemble") if store.has("ensemble") else None
    analysis = analyse(header, store.records(), costs, ensemble, TITLES)
    if not analysis.arms:
        raise InputError(
            f"{folder} has no complete fold yet, so there is nothing to compare; go on with --resume"
        )
    return analysis


def finish(folder: Path) -> Result:
    """Write ``results.parquet`` (or .csv), ``policy.json`` and ``report.html`` into a study's
    folder.
    """
    analysis = load(folder)
    results = write_table(folder, analysis.records, analysis.header)
    chosen = policy(analysis)
    dump(folder / "policy.json", chosen)
    names = [results.name, "policy.json", "study.json"]
    write(folder / "report.html", report.render(analysis, names))
    return Result(
        folder,
        analysis,
        verdict(analysis),
        chosen,
        [folder / n for n in ("report.html", *names[:2])],
    )


def table(records: list[Record], header: Record) -> pd.DataFrame:
    """One row a network and place in the study, without curves."""
    out = []
    for r in records:
        row = {
            "experiment": r["experiment"],
            "arm": r.get("arm", ""),
            "label": r.get("label", ""),
            **{k: r.get(k) for k in ("rate", "batch", "optimizer", "lr", "size", "first", "last")},
            "fold": r["fold"],
            "epochs": r["epochs"],
            "best_epoch": r["best"],
            "stopped": r["stopped"],
            "diverged": r["diverged"] is not None,
            "dead_units": r["dead"],
            "gap": r["gap"],
        }
        for part, (loss, metric) in r["scores"].items():
            row[f"{part}_loss"], row[f"{part}_{header['data']['metric']}"] = loss, metric
        row["seconds"], row["recipe"] = r["seconds"], json.dumps(r["recipe"])
        out.append(row)
    return pd.DataFrame(out)


def write_table(folder: Path, records: list[Record], header: Record) -> Path:
    """``results.parquet``, or ``results.csv`` where Parquet cannot be written."""
    frame = table(records, header)
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except ImportError:  # pyarrow is not installed
        path = folder / "results.csv"
        write(path, frame.to_csv(index=False))
        return path
    path = folder / "results.parquet"
    write(path, buffer.getvalue())
    return path
