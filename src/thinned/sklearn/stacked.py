"""Many perceptrons with specs, trained together: the population, its draws and its optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..algebra.drop import Drop
from ..algebra.key import Key
from .kernels import Gradients, entries, known, scales
from .methods import Method
from .network import Kept, Map, Population, losses
from .records import FitJob
from .specs import Points, by_batch, factors, factors_by_batch, signed, stream
from .updates import Updates


def stacked(jobs: list[FitJob]) -> Population:
    """The weights of some jobs as one population."""
    population = Population(
        jobs[0].plan.units, len(jobs), jobs[0].plan.activation, entries(jobs) is not None
    )
    for m, job in enumerate(jobs):
        arrays = [*(w.T for w in job.coefs), *(b[None] for b in job.intercepts)]
        for part, array in zip(population.parts, arrays, strict=True):
            part[m] = torch.from_numpy(array)
    return population


class Stacked:
    """A population in training. ``on``: on which track each job runs."""

    def __init__(self, jobs: list[FitJob], on: list[int], population: Population) -> None:
        self.jobs, self.on, self.plan, self.population = jobs, on, jobs[0].plan, population
        self.specs = [_plain(job.setting.specs) for job in jobs]
        memory = jobs[0].memory if len(jobs) == 1 else None
        self.updates = Updates(self.plan, population, [job.setting for job in jobs], None, memory)
        self.signed = any(signed(specs) for specs in self.specs)
        self.rooms: dict[int, Tensor] = {}
        self.entries = entries(jobs) if population.inward else None
        self.gradients = (
            Gradients(population, self.plan.head, self.plan.batch_size, self.entries)
            if known(self.plan)
            else None
        )

    def without(self, stay: list[int], jobs: list[FitJob], on: list[int]) -> Stacked:
        """The population of the networks ``stay``, which are ``jobs``."""
        before, old = self.population, self.updates
        new = Stacked(
            jobs, on, Population(before.units, len(stay), before.activation, before.inward)
        )
        new.updates.steps = old.steps
        buffers = [
            (before.flat, new.population.flat),
            *zip(old.moments, new.updates.moments, strict=True),
        ]
        for source, target in buffers:
            for left, right in zip(before.views(source), new.population.views(target), strict=True):
                right.copy_(left[stay])
        return new

    def draw(self, places: list[Tensor], first: int) -> list[tuple[Map, ...]]:
        """The noise of each batch, from the epoch's row ``first`` on; a row's name is its place
        among the training rows.
        """
        rows, size = len(places[0]), self.plan.batch_size
        steps = self.jobs[0].step + torch.arange(first, first + rows) // size
        seen: dict[tuple[int, int], int] = {}
        runs = list(zip(self.jobs, self.on, strict=True))
        same = [seen.setdefault((job.setting.seed, on), m) for m, (job, on) in enumerate(runs)]
        noise: list[list[Map]] = []
        for place, width in enumerate(self.plan.units[:-1]):
            keys = [
                Key(job.setting.seed, stream(place), step=steps, samples=places[on])
                for job, on in runs
            ]
            each = [specs[place] for specs in self.specs]
            if len(each) == 1 and each[0] is not None and by_batch(each[0]):
                noise.append(
                    [
                        _kept(row)
                        for row in factors_by_batch(each[0], keys[0], steps.unique(), width)
                    ]
                )
            else:
                room = self._room(place, rows) if any(each) else None
                noise.append(_batches(factors(each, keys, rows, width, same, room), rows, size))
        return list(zip(*noise, strict=True))

    def _room(self, place: int, rows: int) -> Tensor:
        """Memory for the noise of a place, the same in each epoch: new memory costs as much as the
        draw.
        """
        if place not in self.rooms or self.rooms[place].shape[1] < rows:
            self.rooms[place] = torch.empty(len(self.jobs), rows, self.plan.units[place])
        return self.rooms[place]

    def learn(self, x: Tensor, y: Tensor, share: Tensor, drawn: Any) -> Tensor:
        """Write down a batch's gradients, and return its loss; ``share``: of each row in it,
        ``drawn``: of :meth:`draw`.

        ``x``: rows, or with ``entries`` their numbers.
        """
        if self.gradients is not None and scales(drawn):
            return self.gradients(x, y, share, drawn)
        loss, delta = losses(
            self.population.forward(x, drawn, self.signed), y, share, self.plan.head
        )
        self.population.backward(delta)
        return loss

    def evaluate(self, x: Tensor) -> Tensor:
        """Sums of the last layer without noise."""
        return self.population.evaluate(x, self.specs)

    def state(self) -> dict[str, np.ndarray]:
        """Return nothing: specs hold no parameters."""
        return {}


def _plain(specs: Points) -> tuple[Drop | None, ...]:
    """The same, where a network of methods is trained elsewhere."""
    return tuple(spec for spec in specs if not isinstance(spec, Method))


def _batches(drawn: tuple[Tensor, Tensor | None] | None, rows: int, size: int) -> list[Map]:
    """The noise of each batch, where each row has its own."""
    if drawn is None:
        return [None] * -(-rows // size)
    a, b = (
        None if part is None else (part[0] if len(part) == 1 else part).split(size, -2)
        for part in drawn
    )
    assert a is not None
    return list(zip(a, [None] * len(a) if b is None else b, strict=True))


def _kept(row: Tensor) -> Kept:
    """Return the noise of a batch with one mask for all rows."""
    index = row.nonzero()[:, 0]
    return Kept(index, row[index])


class Fitted:
    """A fitted network for prediction, in the dtype of the rows."""

    def __init__(
        self, coefs: Any, intercepts: Any, activation: str, specs: Points, seed: int, dtype: Any
    ) -> None:
        self.specs, self.seed = _plain(specs), seed
        self.units = [len(w) for w in coefs] + [coefs[-1].shape[1]]
        self.population = Population(self.units, 1, activation)
        parts = [*(w.T for w in coefs), *(b[None] for b in intercepts)]
        self.population.hold([torch.from_numpy(np.asarray(part, dtype))[None] for part in parts])
        self.signed = signed(self.specs)

    def sums(self, x: Tensor, start: int, samples: Tensor | None) -> Tensor:
        """The last sums [networks, b, outputs] of rows from ``start`` on: of thinned networks, or
        of the one without noise.
        """
        if samples is None:
            return self.population.evaluate(x, [self.specs])[None]
        rows = len(x)
        ids, steps = (
            torch.arange(start, start + rows).repeat(len(samples)),
            samples.repeat_interleave(rows),
        )
        keys = [
            Key(self.seed, stream(i, True), step=steps, samples=ids) for i in range(len(self.specs))
        ]
        maps = [
            factors([p], [key], len(ids), w)
            for p, key, w in zip(self.specs, keys, self.units, strict=False)
        ]
        typed = [
            n and (n[0][0].to(x.dtype), n[1] if n[1] is None else n[1][0].to(x.dtype)) for n in maps
        ]
        sums = self.population.forward(x.repeat(len(samples), 1), typed, self.signed)
        return sums.view(len(samples), rows, -1)
