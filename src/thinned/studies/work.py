"""Training of one chunk, in this process or in a worker process.

A chunk is trained on one thread, so its numbers do not depend on how many are trained at once.

``python -m thinned.studies.work`` is a worker process: it reads requests of the study that started
it from standard input, writes the answers to standard output, and ends when its input ends.
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
from .measures import Measure, against_constant
from .records import Record

DIGITS = 6  # significant digits of the curves in records


@dataclass(frozen=True)
class ChunkTask:
    """One task of a worker: to train a chunk, or to compute the section on ensembles.

    Args:
        name: The name of the file for the records.
        fold: The fold of the data.
        title: What the progress display shows.
        chunk: The chunk. None: the section on ensembles.
        settings: The settings of the study.
        measure: The measure of the study.
    """

    name: str
    fold: int
    title: str
    chunk: Chunk | None
    settings: Settings
    measure: Measure


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one thread, with subnormal numbers treated as 0.

    Both make results independent of the machine's number of cores, and training faster.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError for the errors of torch that mean it."""
    try:
        yield
    except RuntimeError as error:
        if any(text in str(error) for text in ("not enough memory", "can't allocate memory")):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise


def run_task(task: ChunkTask, split: Split, advance: Callable[[float], None]) -> Any:
    """Run a task and return its records; ``advance`` is called with network-steps done.

    Raises MemoryError where memory is short, also for torch, which raises RuntimeError.
    """
    with one_thread(), memory_errors():
        if task.chunk is None:
            return ensemble.ensemble_records(task.settings, split)
        chunk = task.chunk
        if chunk.size is not None:
            split = replace(split, train=tile_rows(split.train, chunk.size))
        recipes = [job.recipe for job in chunk.jobs]
        step = chunk.cost(split) / recipes[0].epochs / len(recipes)
        trained = fit_population(
            split,
            recipes,
            lambda networks, epochs: advance(networks * epochs * step),
            None if task.measure.scorer is None else task.measure,
        )
        out = []
        for job, network in zip(chunk.jobs, trained, strict=True):
            of_methods = any(tag["experiment"] == "methods" for tag in job.tags)
            extra = _comparison(network, split, task.measure) if of_methods else {}
            out += [to_record(network, chunk.fold, tag) | extra for tag in job.tags]
        return out


def _comparison(network: Trained, split: Split, measure: Measure) -> Record:
    """The test scores against those of the constant prediction; none for a diverged network."""
    if network.diverged is not None or split.test is None:
        return {}
    module, x = network.module(), split.test.x
    with torch.no_grad():
        outputs = torch.cat([module(x[i : i + 1024]) for i in range(0, len(x), 1024)])
    return {"against_constant": against_constant(outputs, split, measure)}


def tile_rows(train: Rows, size: int) -> Rows:
    """The first ``size`` rows, repeated to the full length.

    Smaller training sets so get as many updates. Each repetition of a row has a sample id of its
    own, and so masks of its own.
    """
    n = len(train)
    repeated = train.take(torch.arange(n) % size)
    return Rows(repeated.x, repeated.y, repeated.ids + torch.arange(n) // size * (1 << 32))


def to_record(trained: Trained, fold: int, tag: Record) -> Record:
    """The record of a trained network, as JSON-like data."""
    return {
        **tag,
        "fold": fold,
        "recipe": trained.recipe.to_json(),
        "history": {name: [_round(v) for v in values] for name, values in trained.history.items()},
        "gradients": [[_round(g) for g in norms] for norms in trained.gradients],
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "stopped_early": trained.stopped_early,
        "diverged": trained.diverged,
        "dead_units": trained.dead_units,
        "flags": trained.flags(),
        "gap": trained.gap,
        "scores": {part: (s.loss, s.metric) for part, s in trained.scores.items()},
        "seconds": trained.seconds,
    }


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the input ends.

    ("split", fold, split) stores the rows of a fold, and ("task", task) runs a task on them.
    """
    splits: dict[int, Split] = {}

    def answer(kind: str, value: Any) -> None:
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
            task = rest[0]
            result = run_task(task, splits[task.fold], lambda cost: answer("advance", cost))
            answer("done", result)
        except InputError as error:
            answer("input error", str(error))
        except MemoryError:
            answer("out of memory", None)
        except Exception:  # noqa: BLE001  the study raises it
            answer("failed", traceback.format_exc())


def main() -> None:
    """Run a worker process."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a user's model may print; that goes to standard error
    try:
        serve(sys.stdin.buffer, answers)
    except BrokenPipeError:
        return  # the study is gone


if __name__ == "__main__":
    main()
