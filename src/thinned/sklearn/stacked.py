"""Many perceptrons whose noise is points, trained together: the population, its draws and its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..algebra.drop import Drop
from ..algebra.key import Key
from .job import Job
from .methods import Method
from .network import Kept, Map, Population, losses
from .points import Points, by_batch, factors, factors_by_batch, signed, stream
from .updates import Updates

Drawn = Callable[[int, int], Map]  # of some rows, drawn ahead: the noise from one row to another


def stacked(jobs: list[Job]) -> Population:
    """The weights of some jobs as one population."""
    population = Population(jobs[0].plan.units, len(jobs), jobs[0].plan.activation)
    for m, job in enumerate(jobs):
        arrays = [*(w.T for w in job.coefs), *(b[None] for b in job.intercepts)]
        for part, array in zip(population.parts, arrays, strict=True):
            part[m] = torch.from_numpy(array)
    return population


class Stacked:
    """A population in training. ``on``: on which track each job runs."""

    price = 0.0  # points add nothing to the loss

    def __init__(self, jobs: list[Job], on: list[int], population: Population) -> None:
        self.jobs, self.on, self.plan, self.population = jobs, on, jobs[0].plan, population
        self.points = [_plain(job.setting.points) for job in jobs]
        memory = jobs[0].memory if len(jobs) == 1 else None
        self.updates = Updates(self.plan, population, [job.setting for job in jobs], None, memory)
        self.signed = any(signed(points) for points in self.points)
        self.draws: list[Drawn] = []

    def without(self, stay: list[int], jobs: list[Job], on: list[int]) -> Stacked:
        """The population of the networks ``stay``, which are ``jobs``."""
        before, old = self.population, self.updates
        new = Stacked(jobs, on, Population(before.units, len(stay), before.activation))
        new.updates.steps = old.steps
        buffers = [(before.flat, new.population.flat), *zip(old.moments, new.updates.moments, strict=True)]
        for source, target in buffers:
            for left, right in zip(before.views(source), new.population.views(target), strict=True):
                right.copy_(left[stay])
        return new

    def draw(self, places: list[Tensor], first: int) -> None:
        """Draw for the rows to come, from the epoch's row ``first``; a row's identity is its place among those to train on."""
        rows = len(places[0])
        steps = self.jobs[0].step + torch.arange(first, first + rows) // self.plan.batch_size
        self.draws = []
        seen: dict[tuple[int, int], int] = {}
        runs = list(zip(self.jobs, self.on, strict=True))
        same = [seen.setdefault((job.setting.seed, on), m) for m, (job, on) in enumerate(runs)]
        for place, width in enumerate(self.plan.units[:-1]):
            keys = [Key(job.setting.seed, stream(place), step=steps, samples=places[on]) for job, on in runs]
            each = [points[place] for points in self.points]
            if len(each) == 1 and each[0] is not None and by_batch(each[0]):
                self.draws.append(_Thin(factors_by_batch(each[0], keys[0], steps.unique(), width), self.plan.batch_size))
            else:
                self.draws.append(partial(_rows, factors(each, keys, rows, width, same)))

    def losses(self, x: Tensor, y: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Of rows ``start`` to ``stop`` of those drawn for: the loss's gradient by the last sums, and the loss of each row."""
        noise = [drawn(start, stop) for drawn in self.draws]
        return losses(self.population.forward(x, noise, self.signed), y, self.plan.head)

    def backward(self, delta: Tensor, share: Tensor | float) -> None:
        """Gradients, from the loss's by the last sums."""
        self.population.backward(delta)

    def evaluate(self, x: Tensor) -> Tensor:
        """Sums of the last layer without noise, [m, b, outputs]."""
        return self.population.evaluate(x, self.points)

    def state(self) -> dict[str, np.ndarray]:
        """Points hold nothing beside weights."""
        return {}


def _plain(points: Points) -> tuple[Drop | None, ...]:
    """The same, where a network of methods is trained elsewhere."""
    return tuple(point for point in points if not isinstance(point, Method))


def _rows(drawn: tuple[Tensor, Tensor | None] | None, start: int, stop: int) -> Map:
    """The noise of rows ``start`` to ``stop``, where each has its own."""
    if drawn is None:
        return None
    a, b = drawn
    return a[:, start:stop], None if b is None else b[:, start:stop]


class _Thin:
    """The noise of rows, where those of a batch share it."""

    def __init__(self, factors: Tensor, batch_size: int) -> None:
        self.factors, self.batch_size = factors, batch_size

    def __call__(self, start: int, stop: int) -> Map:
        row = self.factors[start // self.batch_size]
        index = row.nonzero()[:, 0]
        return Kept(index, row[index])


class Fitted:
    """A fitted network for prediction, in the dtype of the rows."""

    def __init__(self, coefs: Any, intercepts: Any, activation: str, points: Points, seed: int, dtype: Any) -> None:
        self.points, self.seed = _plain(points), seed
        self.units = [len(w) for w in coefs] + [coefs[-1].shape[1]]
        self.population = Population(self.units, 1, activation)
        parts = [*(w.T for w in coefs), *(b[None] for b in intercepts)]
        self.population.hold([torch.from_numpy(np.asarray(part, dtype))[None] for part in parts])
        self.signed = signed(self.points)

    def sums(self, x: Tensor, start: int, samples: Tensor | None) -> Tensor:
        """The last sums [networks, b, outputs] of rows from ``start`` on: of thinned networks, or of the one without noise."""
        x = x[None]
        if samples is None:
            return self.population.evaluate(x, [self.points])
        rows = x.shape[1]
        ids, steps = torch.arange(start, start + rows).repeat(len(samples)), samples.repeat_interleave(rows)
        keys = [Key(self.seed, stream(i, True), step=steps, samples=ids) for i in range(len(self.points))]
        maps = [factors([p], [key], len(ids), w) for p, key, w in zip(self.points, keys, self.units, strict=False)]
        typed = [n and (n[0].to(x.dtype), n[1] if n[1] is None else n[1].to(x.dtype)) for n in maps]
        sums = self.population.forward(x.repeat(1, len(samples), 1), typed, self.signed)
        return sums.view(len(samples), rows, -1)
