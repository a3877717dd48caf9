"""Tasks run by several worker processes at once, each with one thread."""

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
from functools import partial
from typing import Any

from .._errors import InputError
from ..train import Split
from .work import ChunkTask, run_task


class WorkerError(RuntimeError):
    """A worker process ended without an answer, such as one that the system killed for memory."""


OUT_OF_MEMORY = (
    "there is not enough memory for this part of the study. Finished parts are saved; continue "
    "with --resume and fewer --jobs, or start again with fewer --rows"
)
TaskListener = Callable[[str, ChunkTask, Any], None]


def available_processors() -> int:
    """The number of processors that this process may use, at most eight.

    A worker takes about 400 MB of memory.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # this system has no sched_getaffinity
        cores = os.cpu_count() or 1
    return min(cores, 8)


def run_tasks(
    tasks: Sequence[ChunkTask],
    splits: Sequence[Split],
    jobs: int,
    may_start: Callable[[], bool],
    listen: TaskListener,
) -> None:
    """Run ``tasks`` in order, ``jobs`` at once; none is started once ``may_start()`` is False.

    ``listen`` is called in this thread with ``("begin", task, None)``, ``("advance", task, cost)``
    and ``("done", task, result)``. Raises what a task raised, and :class:`WorkerError` where a
    worker died or memory is short. The workers end with this call, however it ends.
    """
    if jobs <= 1 or len(tasks) <= 1:
        for task in tasks:
            if may_start():
                listen("begin", task, None)
                advance = partial(listen, "advance", task)
                try:
                    result = run_task(task, splits[task.fold], advance)
                except MemoryError as error:
                    raise WorkerError(OUT_OF_MEMORY) from error
                listen("done", task, result)
        return
    waiting, events = deque(tasks), queue.SimpleQueue[Any]()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "thinned.studies.work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the study, which then ends the workers
        )
        for _ in range(min(jobs, len(tasks)))
    ]
    threads = [
        threading.Thread(
            target=_feed_worker, args=(w, waiting, splits, events, may_start), daemon=True
        )
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
                elif kind == "died":
                    raise WorkerError(value)
                elif kind == "out of memory":
                    raise WorkerError(OUT_OF_MEMORY)
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
                    with suppress(BrokenPipeError):  # unwritten data for a worker that has ended
                        pipe.close()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect the interrupts during the block in the list that is yielded.

    Python loses the KeyboardInterrupt of a signal that arrives while a finalizer runs; the list
    still has it.
    """
    interrupts: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if (
        before is not signal.default_int_handler
        or threading.current_thread() is not threading.main_thread()
    ):
        yield interrupts
        return

    def handle(number: int, frame: Any) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def _feed_worker(
    worker: subprocess.Popen[bytes],
    waiting: deque[ChunkTask],
    splits: Sequence[Split],
    events: queue.SimpleQueue[Any],
    may_start: Callable[[], bool],
) -> None:
    """Give tasks to one worker until none is left, and turn its answers into events."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    sent_folds: set[int] = set()
    try:
        while may_start():
            try:
                task = waiting.popleft()
            except IndexError:
                break
            events.put(("begin", task, None))
            if task.fold not in sent_folds:
                pickle.dump(("split", task.fold, splits[task.fold]), worker.stdin)
                sent_folds.add(task.fold)
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
        why = f"exit status {code}"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else -code
            why = f"signal {name}"
            if -code == getattr(signal, "SIGKILL", None):  # what the system sends when memory ends
                why += ", which the system sends when memory is short"
        events.put(
            (
                "died",
                None,
                f"a worker process died ({why}). Finished parts are saved; continue with --resume "
                "and fewer --jobs, such as --jobs 1",
            )
        )
    finally:
        events.put(("ended", None, None))
