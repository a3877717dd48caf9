"""Running a study: chunk by chunk, each kept as soon as it is done."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..train import Split
from ..train.networks import build, check_output
from .costs import measure
from .data import Dataset
from .design import PILOT_LR, Chunk, Settings, chosen_lr, chunks, context, pilots, usable
from .folds import splits
from .pool import available, perform
from .records import FORMAT, Record, Store
from .work import ChunkTask, one_thread


class Watcher(Protocol):
    """Who is told how a study goes."""

    def start(self, total: float, done: float, networks: int) -> None:
        """Before training: all network-steps, those that an earlier run did, and the number of
        networks.
        """

    def begin(self, what: str) -> None:
        """Something is started."""

    def advance(self, cost: float) -> None:
        """So many network-steps are done."""

    def result(self, records: Sequence[Record]) -> None:
        """Networks are finished."""


class Silent:
    """Tells nobody."""

    def start(self, total: float, done: float, networks: int) -> None: ...
    def begin(self, what: str) -> None: ...
    def advance(self, cost: float) -> None: ...
    def result(self, records: Sequence[Record]) -> None: ...


@dataclass
class Outcome:
    """What a run did. ``left``: how many tasks the budget left undone. ``seconds``: of this run."""

    store: Store
    header: Record
    left: int
    seconds: float


def run(
    data: Dataset,
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    budget: float | None = None,
    jobs: int | None = None,
    watcher: Watcher | None = None,
    command: str = "",
) -> Outcome:
    """Train what is not there yet. ``budget``: minutes, after which nothing new begins. ``jobs``:
    processes at once.

    A chunk depends on its own settings alone, so a study that was interrupted and resumed, or ran
    in more processes, gives the same numbers. Raises :class:`thinned.InputError` for bad input
    before anything is trained.
    """
    watcher = watcher or Silent()
    began = time.perf_counter()
    folds = splits(data, settings.folds, settings.repeats, settings.seed)
    base = context(settings, folds[0], 0, PILOT_LR[0]).base
    check_output(lambda: build(base, folds[0]), folds[0], base.batch_size)
    first = pilots(settings, folds)
    rest = chunks(
        settings, folds, PILOT_LR[0]
    )  # the rate will be another, what is there to do will not
    store = Store(folder)
    store.prepare()
    names = [*(c.name for c in (*first, *rest)), "ensemble", "costs"]
    about = header(data, settings, folds, command) | {"planned": len(names)}
    kept = store.begin(
        about, resume or (store.header.exists() and all(store.has(n) for n in names))
    )
    before = {
        name: store.get(name) for name in names if store.has(name)
    }  # what is damaged is told before training
    costs = {c.name: c.cost(folds[c.fold]) for c in (*first, *rest)}
    done = sum(cost for name, cost in costs.items() if store.has(name))
    watcher.start(sum(costs.values()), done, sum(len(c.jobs) for c in (*first, *rest)))
    for name in costs:
        if name in before:
            watcher.result(before[name])

    def listen(kind: str, task: ChunkTask, value: Any) -> None:
        if kind == "begin":
            watcher.begin(task.what)
        elif kind == "advance":
            watcher.advance(value)
        else:
            store.put(task.name, value)
            if task.chunk is not None:
                watcher.result(value)

    deadline = None if budget is None else began + 60 * budget
    workers = jobs or available()

    def perform_all(tasks: list[ChunkTask]) -> bool:
        """Do what is not there yet; True if it then is."""
        tasks = [t for t in tasks if not store.has(t.name)]
        perform(
            tasks,
            folds,
            workers,
            lambda: deadline is None or time.perf_counter() < deadline,
            listen,
        )
        return all(store.has(t.name) for t in tasks)

    def task(chunk: Chunk) -> ChunkTask:
        return ChunkTask(chunk.name, chunk.fold, chunk.what, chunk, settings)

    if perform_all([task(c) for c in first]):
        settled = replace(settings, lr=chosen_lr(settings, store.records()))
        planned = [task(c) for c in chunks(settings, folds, settled.lr or 0.0)]
        arms = sum(any(t["experiment"] == "arms" for j in c.jobs for t in j.tags) for c in rest)
        planned.insert(arms, ChunkTask("ensemble", 0, "the ensemble", None, settled))
        if perform_all(planned) and not store.has("costs"):  # alone, because it is timed
            watcher.begin("cost of each arm")
            with one_thread():
                store.put("costs", measure(settled, folds[0], store.records()))
    return Outcome(store, kept, sum(not store.has(n) for n in names), time.perf_counter() - began)


def header(data: Dataset, settings: Settings, folds: Sequence[Split], command: str) -> Record:
    """All that a report says of how it was made; settings, data and versions have to agree when a
    study is resumed.
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
            "metric": first.task.metric,
            "classes": data.classes,
            "image": data.image,
            "train": len(first.train),
            "val": len(first.val),
            "test": len(first.test) if first.test else 0,
            "extra": len(first.extra) if first.extra else 0,
            "notes": data.notes,
            "digest": data.digest(),
        },
        "versions": {"thinned": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "where": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "cores": os.cpu_count(),
        },
        "skipped": usable(settings, first)[1],
        "base": context(settings, first, 0, settings.lr or PILOT_LR[0]).base.to_json(),
        "command": command,
        "began": time.strftime("%Y-%m-%d %H:%M"),
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
