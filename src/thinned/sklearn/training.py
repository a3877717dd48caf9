"""The training loop. Its rules are those of ``MLPClassifier``: order, loss, penalties, when to
stop, what to keep.

So a network without dropout is the one that scikit-learn would have trained, up to rounding; a test
holds it to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from .modular import Modular
from .network import head
from .records import FitJob, FitPlan, Learned, Track
from .stacked import Stacked, stacked

_AHEAD = 1 << 22  # cells drawn at once for one place
_ROWS = 1 << 22  # numbers in one evaluation
_SMALL = (
    1e7  # multiplications of a step below which threads wait for each other longer than they work
)


def train(jobs: Sequence[FitJob], verbose: bool = False) -> int:
    """Train every job, those of one plan in one pass; returns how many passes there were.

    What was learned is written down even where this is interrupted.
    """
    passes = 0
    order = lambda job: (repr(job.plan), job.setting.lr)  # noqa: E731
    for _, some in groupby(sorted(jobs, key=order), key=lambda job: job.plan):
        members = list(some)
        size = 1 if members[0].plan.modules else _fit_in_memory(members[0].plan)
        for start in range(0, len(members), size):
            some_jobs = members[start : start + size]
            with threads(
                3 * len(some_jobs) * members[0].plan.batch_size * _weights(members[0].plan)
            ):
                _Pass(some_jobs, verbose).run()
            passes += 1
    return passes


def threads(work: int) -> AbstractContextManager[Any]:
    """One thread where ``work``, in multiplications, is small, for this thread of the caller alone;
    else torch's number.
    """
    return _controller().limit(limits=1, user_api="openmp") if work < _SMALL else nullcontext()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _weights(plan: FitPlan) -> int:
    return sum(i * o for i, o in zip(plan.units[:-1], plan.units[1:], strict=True))


def _fit_in_memory(plan: FitPlan) -> int:
    return max(1, (1 << 27) // (4 * _weights(plan) + 6 * plan.batch_size * sum(plan.units)))


class _Pass:
    """One population, or one network of modules, from its first batch to its last; networks that
    end early leave it.
    """

    def __init__(self, jobs: list[FitJob], verbose: bool) -> None:
        self.plan, self.verbose = jobs[0].plan, verbose
        named: dict[object, Track] = {}
        for job in jobs:
            if job.track.name is not None:
                job.track = named.setdefault(job.track.name, job.track)
        self._gather(jobs)
        population = stacked(jobs)
        self.net: Stacked | Modular = (
            Modular(jobs[0], population)
            if self.plan.modules
            else Stacked(jobs, self.on, population)
        )
        self.orders = {id(track): torch.arange(self.plan.rows) for track in self.tracks}

    def _gather(self, jobs: list[FitJob]) -> None:
        """Which tracks these jobs need, and which job runs on which."""
        self.jobs = jobs
        self.tracks = list({id(job.track): job.track for job in jobs}.values())
        number = {id(track): i for i, track in enumerate(self.tracks)}
        self.on = [number[id(job.track)] for job in jobs]
        self.index = torch.tensor(self.on)

    def run(self) -> None:
        try:
            for _ in range(self.plan.epochs):
                began = time.perf_counter()
                self._epoch()
                self._judge()
                share = (time.perf_counter() - began) / len(self.jobs)
                for job in self.jobs:
                    job.seconds += share
                if all(job.stopped for job in self.jobs):
                    break
                if any(job.stopped for job in self.jobs):
                    self._leave()
        finally:
            self._write(range(len(self.jobs)))

    def _epoch(self) -> None:
        plan, m = self.plan, len(self.jobs)
        if plan.shuffle:
            for track in self.tracks:
                order = np.arange(plan.rows)  # sklearn.utils.shuffle without its checks
                track.random.shuffle(order)
                self.orders[id(track)] = self.orders[id(track)][torch.from_numpy(order)]
        orders = [self.orders[id(track)] for track in self.tracks]
        ahead = plan.batch_size * max(1, _AHEAD // (m * plan.batch_size * max(plan.units)))
        seen: list[tuple[Tensor, Tensor, float | Tensor, int]] = []
        for start in range(0, plan.rows, ahead):
            places = [order[start : start + ahead] for order in orders]
            for (x, y, share, weight), drawn in zip(
                self._batches(places), self.net.draw(places, start), strict=True
            ):
                loss = self.net.learn(x, y, share, drawn)
                seen.append((loss, self.net.updates.step(weight), weight, x.shape[-2]))
        for job, value in zip(self.jobs, self._mean(*zip(*seen, strict=True)), strict=True):
            job.epochs += 1
            job.step += len(seen)
            job.loss_curve.append(value)
        if self.verbose:
            print(f"Iteration {self.jobs[0].epochs}, loss = {self.jobs[0].loss_curve[-1]:.8f}")

    def _batches(
        self, places: list[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, float | Tensor]]:
        """Of each batch: rows (or their numbers), targets, each row's share in its loss, and what
        its rows weigh together.
        """
        size = self.plan.batch_size
        chosen = [
            (track, track.index[place]) for track, place in zip(self.tracks, places, strict=True)
        ]

        def split(get: Callable[[Track, Tensor], Tensor]) -> tuple[Tensor, ...]:
            return self._each([get(track, index) for track, index in chosen]).split(size, -2)

        numbered = self.net.entries is not None
        x = split(lambda track, index: index[:, None] if numbered else track.rows.take(index))
        y = split(lambda track, index: track.y.index_select(0, index))
        if not self.plan.weighted:
            even = {n: torch.full((n, 1), 1.0 / n) for n in {part.shape[-2] for part in x}}
            for rows, targets in zip(x, y, strict=True):
                n = rows.shape[-2]
                yield rows, targets, even[n], float(n)
            return
        weights = split(lambda track, index: track.weight[index, None])  # type: ignore[index]
        for rows, targets, part in zip(x, y, weights, strict=True):
            weight = part.sum((-2, -1), keepdim=True).clamp_min(torch.finfo(part.dtype).tiny)
            yield rows, targets, part / weight, weight if weight.dim() == 3 else weight.item()

    def _mean(self, losses: Any, penalties: Any, weights: Any, rows: Any) -> Any:
        """The mean loss of an epoch for each network; of each batch: loss, penalty, what its rows
        weigh, how many they are.
        """
        weight = torch.stack([torch.as_tensor(w).view(-1) for w in weights])
        each = torch.stack(losses).view(len(rows), -1) + torch.stack(penalties) / weight
        return (torch.tensor(rows, dtype=each.dtype) @ each / self.plan.rows).tolist()

    def _each(self, parts: list[Tensor]) -> Tensor:
        """One tensor a track as one a network, [m, ...], or [1, ...] where they share a track;
        without axis for one network.
        """
        if len(self.jobs) == 1:
            return parts[0]
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)[self.index]

    def _judge(self) -> None:
        """Count epochs without progress, keep the best weights, stop."""
        plan = self.plan
        scores = self._scores() if plan.early_stopping else [0.0] * len(self.jobs)
        for m, (job, score) in enumerate(zip(self.jobs, scores, strict=True)):
            if plan.early_stopping:
                job.validation_scores.append(score)
                job.waited = job.waited + 1 if score < job.best_score + plan.tol else 0
                if score > job.best_score:
                    job.best_score, job.best = score, self._copy(m)
                if self.verbose:
                    print(f"Validation score: {score:f}")
            else:
                loss = job.loss_curve[-1]
                job.waited = job.waited + 1 if loss > job.best_loss - plan.tol else 0
                job.best_loss = min(job.best_loss, loss)
            if job.waited > plan.patience:
                job.stopped = True
                if self.verbose:
                    what = "Validation score" if plan.early_stopping else "Training loss"
                    print(
                        f"{what} did not improve by {plan.tol:g} in {plan.patience:g} epochs. "
                        f"Stopping."
                    )

    @torch.no_grad()
    def _scores(self) -> list[float]:
        size = max(1, _ROWS // (len(self.jobs) * max(self.plan.units)))
        out = []
        for start in range(0, self.plan.validation, size):
            x = self._each(
                [track.rows.take(_held(track)[start : start + size]) for track in self.tracks]
            )
            out.append(head(self.net.evaluate(x), self.plan.head))
        found = torch.cat(out, -2).view(len(self.jobs), self.plan.validation, -1)
        return [
            self.tracks[on].scorer(outputs)
            for on, outputs in zip(self.on, found.numpy(), strict=True)
        ]

    def _leave(self) -> None:
        """Networks that have ended leave the population."""
        ended = [m for m, job in enumerate(self.jobs) if job.stopped]
        stay = [m for m, job in enumerate(self.jobs) if not job.stopped]
        self._write(ended)
        self._gather([self.jobs[m] for m in stay])
        assert isinstance(self.net, Stacked)
        self.net = self.net.without(stay, self.jobs, self.on)

    def _copy(self, m: int) -> Learned:
        population = self.net.population
        parts = [part[m].numpy() for part in population.parts]
        weights, biases = parts[: population.layers], parts[population.layers :]
        return [w.T.copy() for w in weights], [b[0].copy() for b in biases], self.net.state()

    def _write(self, which: Sequence[int]) -> None:
        for m in which:
            job = self.jobs[m]
            job.coefs, job.intercepts, job.state = self._copy(m)
            if len(self.jobs) == 1:
                job.memory = self.net.updates.memory()


def _held(track: Track) -> Tensor:
    assert track.held is not None
    return track.held
