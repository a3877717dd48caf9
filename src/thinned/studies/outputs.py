"""The results of a study: table, policy and report, made from the records in its folder."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .._errors import InputError
from . import report
from .analysis import Analysis, analyze, policy
from .methods import STUDY_METHODS
from .records import Record, StudyFolder, dump, write
from .verdict import Verdict, verdict

TITLES = {name: (method.title, method.family) for name, method in STUDY_METHODS.items()}


@dataclass
class Result:
    """The result of a study.

    ``str(result)`` is the verdict as text.

    Args:
        folder: The folder of the study.
        analysis: The comparisons of methods and families.
        verdict: The verdict in sentences.
        policy: The recommended setting, as written to ``policy.json``; see :func:`thinned.apply`.
        files: The paths of the report, the table and the policy.

    Example:
        >>> import tempfile
        >>> from thinned import study
        >>> folder = tempfile.mkdtemp()
        >>> result = study(
        ...     level="quick", methods=["l2"], folds=2, epochs=1, rows=120, jobs=1, out=folder
        ... )
        >>> result.report.name
        'report.html'
    """

    folder: Path
    analysis: Analysis
    verdict: Verdict
    policy: Record
    files: list[Path]

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self.folder / "report.html"

    @property
    def notes(self) -> list[str]:
        """What was decided when the data were read: rows and columns left out, the task."""
        return list(self.analysis.data["notes"])

    @property
    def warnings(self) -> list[str]:
        """What in the data may make the results wrong, such as duplicate rows."""
        return list(self.analysis.data.get("warnings", ()))

    @property
    def columns(self) -> pd.DataFrame:
        """How each column of a table was read: its name, type and a remark."""
        rows = self.analysis.data.get("columns", ())
        return pd.DataFrame(rows, columns=["column", "type", "remark"])

    @property
    def table(self) -> pd.DataFrame:
        """The scores of all networks: one row for each network and each of its uses."""
        return table(self.analysis.records, self.analysis.header)

    def __str__(self) -> str:
        return "\n".join(
            [
                self.verdict.headline,
                *(f"{subject}: {text}" for subject, text in self.verdict.sentences),
            ]
        )


def load(folder: Path) -> Analysis:
    """Read and analyze the records of a study.

    Raises :class:`thinned.InputError` where there are none, or no fold is complete yet.
    """
    store = StudyFolder(folder)
    header = store.read_header()
    costs = store.get("costs") if store.has("costs") else []
    ensemble = store.get("ensemble") if store.has("ensemble") else None
    analysis = analyze(header, store.records(), costs, ensemble, TITLES)
    if not analysis.methods:
        raise InputError(
            f"{folder} has no complete fold yet, so there is nothing to compare; continue with "
            "--resume"
        )
    return analysis


def finish(folder: Path) -> Result:
    """Write ``results.parquet`` (or .csv), ``policy.json`` and ``report.html`` of a study."""
    analysis = load(folder)
    results = write_table(folder, analysis.records, analysis.header)
    recommended = policy(analysis)
    dump(folder / "policy.json", recommended)
    names = [results.name, "policy.json", "study.json"]
    write(folder / "report.html", report.render(analysis, names))
    return Result(
        folder,
        analysis,
        verdict(analysis),
        recommended,
        [folder / n for n in ("report.html", *names[:2])],
    )


def table(records: list[Record], header: Record) -> pd.DataFrame:
    """One row for each network and each of its uses in the study, without curves."""
    out = []
    for r in records:
        row = {
            "experiment": r["experiment"],
            "method": r.get("method", ""),
            "label": r.get("label", ""),
            **{k: r.get(k) for k in ("rate", "batch", "optimizer", "lr", "size", "first", "last")},
            "fold": r["fold"],
            "epochs": r["epochs"],
            "best_epoch": r["best_epoch"],
            "stopped_early": r["stopped_early"],
            "diverged": r["diverged"] is not None,
            "dead_units": r["dead_units"],
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
