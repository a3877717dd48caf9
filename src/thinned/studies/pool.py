"""Tasks carried out by several processes at once, each with one thread."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from .._errors import InputError
from ..train import Split
from .work import ChunkTask, do

Listen = Callable[[str, ChunkTask, Any], None]


def available() -> int:
    """The processors that this process may use, at most eight: a worker takes about 400 MB."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    return min(cores, 8)


def perform(
    tasks: Sequence[ChunkTask],
    splits: Sequence[Split],
    jobs: int,
    more: Callable[[], bool],
    listen: Listen,
) -> None:
    """Do ``tasks`` in order, ``jobs`` at once; no new one begins once ``more()`` is False.

    ``listen`` hears, in this thread, ``("begin", task, None)``, ``("advance", task, cost)``,
    ``("done", task, result)``. Raises what a task raised, and RuntimeError where a worker died; the
    workers end with this call, however it ends.
    """
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            if more():
                listen("begin", task, None)
                listen(
                    "done",
                    task,
                    do(
                        task,
                        splits[task.fold],
                        lambda cost, task=task: listen("advance", task, cost),  # type: ignore[misc]
                    ),
                )
        return
    waiting, events = deque(tasks), queue.SimpleQueue[Any]()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "thinned.studies.work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # an interrupt at the terminal is for the study, which then ends them
        )
        for _ in range(min(jobs, len(tasks)))
    ]
    threads = [
        threading.Thread(target=_drive, args=(w, waiting, splits, events, more), daemon=True)
        for w in workers
    ]
    try:
        with _interrupts() as interrupted:
            for thread in threads:
                thread.start()
            ended = 0
            while ended < len(workers):
                kind, task, value = events.get()
                if interrupted:
                    raise KeyboardInterrupt
                if kind == "ended":
                    ended += 1
                elif kind == "input error":
                    raise InputError(value)
                elif kind == "failed":
                    raise RuntimeError(value)
                else:
                    listen(kind, task, value)
    finally:
        for worker in workers:
            worker.kill()
        for worker, thread in zip(workers, threads, strict=True):
            worker.wait()
            if thread.ident is not None:
                thread.join()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    with suppress(
                        BrokenPipeError
                    ):  # what was still to be written has nobody to read it
                        pipe.close()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Within: what is yielded holds the interrupts so far. Python loses the exception of one that
    comes within a finalizer.
    """
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if (
        before is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield seen
        return

    def handle(number: int, frame: Any) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _drive(
    worker: subprocess.Popen[bytes],
    waiting: deque[ChunkTask],
    splits: Sequence[Split],
    events: queue.SimpleQueue[Any],
    more: Callable[[], bool],
) -> None:
    """Feed one worker until no task is left; everything it says becomes an event."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    told: set[int] = set()
    try:
        while more():
            try:
                task = waiting.popleft()
            except IndexError:
                break
            events.put(("begin", task, None))
            if task.fold not in told:
                pickle.dump(("split", task.fold, splits[task.fold]), worker.stdin)
                told.add(task.fold)
            pickle.dump(("task", task), worker.stdin)
            worker.stdin.flush()
            kind = "advance"
            while kind == "advance":
                kind, value = pickle.load(worker.stdout)  # noqa: S301  from the process that was started here
                events.put((kind, task, value))
            if kind != "done":
                return
    except (EOFError, OSError, pickle.UnpicklingError):
        code = worker.wait()
        why = f"signal {-code}; out of memory?" if code < 0 else f"exit status {code}"
        events.put(
            (
                "failed",
                None,
                f"a worker process died ({why}). What is finished is kept; try --jobs 1 --resume",
            )
        )
    finally:
        events.put(("ended", None, None))
