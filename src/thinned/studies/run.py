"""Running a study: chunk by chunk, with the records of each written as soon as it is done."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch

from ..train import Custom, Split
from ..train.networks import build, check_model, load_model_function
from .costs import measure as measure_costs
from .dataset import Dataset
from .design import PILOT_LR, Chunk, Settings, choose_lr, chunks, context, pilots, usable_methods
from .folds import splits
from .measures import constant_scores, resolve
from .pool import available_processors, run_tasks
from .records import FORMAT, Record, StudyFolder
from .work import ChunkTask, one_thread


class StudyProgress(Protocol):
    """Receives the progress of a study, for a display."""

    def describe(self, data: Record) -> None:
        """Called before training with the part of the header that describes the data."""

    def start(self, total: float, done: float, networks: int) -> None:
        """Called before training.

        ``total``: all network-steps; ``done``: those of earlier runs; ``networks``: the number of
        networks.
        """

    def begin(self, title: str) -> None:
        """Called when a part of the study is started."""

    def advance(self, cost: float) -> None:
        """Called when ``cost`` more network-steps are done."""

    def result(self, records: Sequence[Record]) -> None:
        """Called with the records of networks that are finished."""


class NoProgress:
    """Ignores all progress."""

    def describe(self, data: Record) -> None: ...
    def start(self, total: float, done: float, networks: int) -> None: ...
    def begin(self, title: str) -> None: ...
    def advance(self, cost: float) -> None: ...
    def result(self, records: Sequence[Record]) -> None: ...


@dataclass
class Outcome:
    """The outcome of a run.

    Args:
        store: The folder of the study.
        header: The settings, the data and the versions.
        parts_left: The number of parts that the budget left undone.
        seconds: The duration of this run.
    """

    store: StudyFolder
    header: Record
    parts_left: int
    seconds: float


def run(
    data: Dataset,
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    budget: float | None = None,
    jobs: int | None = None,
    progress: StudyProgress | None = None,
    command: str = "",
) -> Outcome:
    """Train every part of the study that has no records yet.

    ``budget``: the minutes after which no new part is started. ``jobs``: the number of processes.

    The records of a chunk are a function of its settings, so a study that was interrupted and
    resumed, or ran in more processes, gives the same numbers. Raises :class:`thinned.InputError`
    for bad input before anything is trained.
    """
    progress = progress or NoProgress()
    began = time.perf_counter()
    folds = splits(data, settings.folds, settings.repeats, settings.seed, settings.class_weight)
    measure = resolve(settings.metric, data.kind, len(data.classes))
    constant = [constant_scores(split, measure, fold) for fold, split in enumerate(folds)]
    base = context(settings, folds[0], 0, PILOT_LR[0]).base
    check_model(lambda: build(base, folds[0]), folds[0], base.batch_size)
    first = pilots(settings, folds)
    # the learning rate is not chosen yet; the number and order of the chunks do not depend on it
    rest = chunks(settings, folds, PILOT_LR[0])
    names = [*(c.name for c in (*first, *rest)), "ensemble", "costs"]
    current_header = header(data, settings, folds, command) | {
        "planned": len(names),
        "measure": measure.to_json(),
        "constant": constant,
    }
    store = StudyFolder(folder)
    with store.locked():
        header_in_force = store.begin(
            current_header, resume or (store.header.exists() and all(store.has(n) for n in names))
        )
        # reading them now reports damaged records before any training
        before = {name: store.get(name) for name in names if store.has(name)}
        costs = {c.name: c.cost(folds[c.fold]) for c in (*first, *rest)}
        done = sum(cost for name, cost in costs.items() if store.has(name))
        progress.describe(current_header["data"])
        progress.start(sum(costs.values()), done, sum(len(c.jobs) for c in (*first, *rest)))
        for name in costs:
            if name in before:
                progress.result(before[name])

        def listen(kind: str, task: ChunkTask, value: Any) -> None:
            if kind == "begin":
                progress.begin(task.title)
            elif kind == "advance":
                progress.advance(value)
            else:
                store.put(task.name, value)
                if task.chunk is not None:
                    progress.result(value)

        deadline = None if budget is None else began + 60 * budget
        workers = jobs or available_processors()

        def run_missing(tasks: list[ChunkTask]) -> bool:
            """Run the tasks that have no records; True if all of them then have."""
            tasks = [t for t in tasks if not store.has(t.name)]
            run_tasks(
                tasks,
                folds,
                workers,
                lambda: deadline is None or time.perf_counter() < deadline,
                listen,
            )
            return all(store.has(t.name) for t in tasks)

        def task_of(chunk: Chunk) -> ChunkTask:
            return ChunkTask(chunk.name, chunk.fold, chunk.title, chunk, settings, measure)

        if run_missing([task_of(c) for c in first]):
            with_lr = replace(settings, lr=choose_lr(settings, store.records()))
            planned = [task_of(c) for c in chunks(settings, folds, with_lr.lr or 0.0)]
            method_chunks = sum(
                any(t["experiment"] == "methods" for j in c.jobs for t in j.tags) for c in rest
            )
            planned.insert(
                method_chunks, ChunkTask("ensemble", 0, "the ensemble", None, with_lr, measure)
            )
            if run_missing(planned) and not store.has("costs"):  # by itself, because it is timed
                progress.begin("cost of each method")
                with one_thread():
                    store.put("costs", measure_costs(with_lr, folds[0], store.records()))
        return Outcome(
            store,
            header_in_force,
            sum(not store.has(n) for n in names),
            time.perf_counter() - began,
        )


def header(data: Dataset, settings: Settings, folds: Sequence[Split], command: str) -> Record:
    """What the report says about how the study was made.

    A study is resumed only with equal settings, data and versions.
    """
    from .. import __version__

    first = folds[0]
    return {
        "format": FORMAT,
        "settings": settings.to_json(),
        "data": {
            "name": data.name,
            "rows": len(data),
            "features": data.x.shape[1],
            "inputs": first.inputs,
            "target": data.target,
            "kind": data.kind,
            "metric": resolve(settings.metric, data.kind, len(data.classes)).column,
            "classes": data.classes,
            "image": data.image,
            "train": len(first.train),
            "val": len(first.val),
            "test": len(first.test) if first.test else 0,
            # rows of a fold: those of other folds differ where groups or times decide
            "test_share": fmean(len(s.test or ()) / (len(s.train) + len(s.val)) for s in folds),
            "grouped": data.groups is not None,
            "ordered": data.time is not None,
            "extra": len(first.extra) if first.extra else 0,
            "notes": data.notes,
            "warnings": data.warnings,
            "columns": [list(c) for c in data.columns],
            "digest": data.digest(),
        },
        "model": model_digest(settings, first),
        "methods": usable_methods(settings, first)[0],
        "versions": {"thinned": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "where": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": os.cpu_count(),
        },
        "skipped": usable_methods(settings, first)[1],
        "base": context(settings, first, 0, settings.lr or PILOT_LR[0]).base.to_json(),
        "command": command,
        "began": time.strftime("%Y-%m-%d %H:%M"),
    }


def model_digest(settings: Settings, split: Split) -> Record:
    """What identifies the user's own model: hashes of its source file and of the network built.

    Empty for built-in models, which the version of thinned identifies.
    """
    recipe = context(settings, split, 0, PILOT_LR[0]).base
    if not isinstance(recipe.network, Custom):
        return {}
    function = load_model_function(recipe.network.path)
    source = inspect.getsourcefile(function)
    net = build(recipe, split)
    described = [
        repr(net),
        *(f"{k} {v.dtype} {list(v.shape)}" for k, v in net.state_dict().items()),
    ]
    return {
        "source": _digest(Path(source).read_bytes()) if source else None,
        "network": _digest("\n".join(described).encode("utf-8", "backslashreplace")),
    }


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def processor() -> str:
    """The name of the processor, where the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
