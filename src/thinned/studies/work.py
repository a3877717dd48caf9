"""Training one chunk, here or in a process of its own. A chunk runs on one thread, so its numbers
do not depend on how many run beside it.

``python -m thinned.studies.work`` is such a process: it reads requests from its standard input and
answers on its standard output, both from and to the study that started it, and ends when that input
does.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any

import torch

from .._errors import InputError
from ..train import Rows, Split, Trained, fit_population
from . import ensemble
from .design import Chunk, Settings
from .records import Record

DIGITS = 6  # significant, of curves


@dataclass(frozen=True)
class ChunkTask:
    """What a worker is asked: a chunk, or (with none) the section on ensembles. ``name``: of the
    file that keeps it.
    """

    name: str
    fold: int
    what: str
    chunk: Chunk | None
    settings: Settings


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, and numbers too small for a normal float count as 0: faster, and the same
    everywhere.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def do(task: ChunkTask, split: Split, advance: Callable[[float], None]) -> Any:
    """Carry out a task; ``advance`` hears of each network-step."""
    with one_thread():
        if task.chunk is None:
            return ensemble.shown(task.settings, split)
        chunk = task.chunk
        if chunk.size is not None:
            split = replace(split, train=tiled(split.train, chunk.size))
        recipes = [job.recipe for job in chunk.jobs]
        step = chunk.cost(split) / recipes[0].epochs / len(recipes)
        trained = fit_population(
            split, recipes, lambda networks, epochs: advance(networks * epochs * step)
        )
        return [
            record(done, chunk.fold, tag)
            for job, done in zip(chunk.jobs, trained, strict=True)
            for tag in job.tags
        ]


def tiled(train: Rows, size: int) -> Rows:
    """The first ``size`` rows, repeated to the full length, so that smaller sets get as many
    updates.

    A repeated row has an id of its own, and so its own masks.
    """
    n = len(train)
    few = train.take(torch.arange(n) % size)
    return Rows(few.x, few.y, few.ids + torch.arange(n) // size * (1 << 32))


def record(done: Trained, fold: int, tag: Record) -> Record:
    """One network as plain data."""
    return {
        **tag,
        "fold": fold,
        "recipe": done.recipe.to_json(),
        "history": {name: [_round(v) for v in values] for name, values in done.history.items()},
        "gradients": [[_round(g) for g in norms] for norms in done.gradients],
        "epochs": done.epochs,
        "best": done.best,
        "stopped": done.stopped,
        "diverged": done.diverged,
        "dead": done.dead,
        "flags": done.flags(),
        "gap": done.gap,
        "scores": {part: (s.loss, s.metric) for part, s in done.scores.items()},
        "seconds": done.seconds,
    }


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until they end: ("split", fold, rows) is remembered, ("task", task) is done."""
    splits: dict[int, Split] = {}

    def say(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    while True:
        try:
            kind, *rest = pickle.load(requests)  # noqa: S301  from the process that started this one
        except EOFError:
            return
        if kind == "split":
            splits[rest[0]] = rest[1]
            continue
        try:
            say("done", do(rest[0], splits[rest[0].fold], lambda cost: say("advance", cost)))
        except InputError as error:
            say("input error", str(error))
        except Exception:  # noqa: BLE001  told to the study, which raises it
            say("failed", traceback.format_exc())


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a user's model prints goes to standard error
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        return  # the study is gone


if __name__ == "__main__":
    main()
