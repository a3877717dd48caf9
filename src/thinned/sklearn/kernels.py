"""A population by the native kernels: its loss and gradients, and Adam. Without them the operators
of torch do the same.

Gradients are two parallel passes, over rows and over units, in which each thread makes its own
products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..algebra.drop import Drop
from ..engines.torch import native
from .network import Kept, Map, Population
from .records import Entries, FitJob, FitPlan
from .specs import by_batch, shifts

_NUMBERS = {
    "identity": 0,
    "logistic": 1,
    "softmax": 2,
    "relu": 3,
    "tanh": 4,
}  # of activations and heads, in csrc/kernels.h
_LAYERS = 64
_EPOCHS = 5  # to train for, from which on it pays to look for zeros in dense rows


class Gradients:
    """What :class:`Population` does in ``forward`` and ``backward``, for batches of at most
    ``rows`` rows.

    ``entries``: of all rows, where they are sparse; then ``x`` are the numbers of a batch's rows,
    [..., b, 1].
    """

    def __init__(
        self, population: Population, head: str, rows: int, entries: Entries | None
    ) -> None:
        self.population, self.entries = population, entries
        units, m = population.units, population.m
        inputs = 0 if entries else units[0]
        self.scratch = torch.empty(m * rows * (inputs + 3 * sum(units[1:-1]) + units[-1]))
        self.plan = _plan(population, (_NUMBERS[population.activation], _NUMBERS[head]), entries)

    def __call__(
        self, x: Tensor, y: Tensor, share: Tensor, maps: Sequence[tuple[Tensor, None] | None]
    ) -> Tensor:
        """Write down a batch's gradients, and return its loss: [m], or [] of one network."""
        assert native.perceptron is not None
        loss = torch.empty(self.population.m if self.population.m > 1 else ())
        data = [part for given in (x, y, share) for part in _place(given)]
        noise = [part for given in maps for part in (_place(given[0]) if given else (0, 0))]
        native.perceptron(
            self.plan.data_ptr(),
            x.shape[-2],
            loss.data_ptr(),
            self.scratch.data_ptr(),
            *data,
            *noise,
        )
        return loss


def known(plan: FitPlan) -> bool:
    """Are there native gradients for such networks?"""
    kinds = {plan.activation, plan.head}
    return kinds <= _NUMBERS.keys() and len(plan.units) <= _LAYERS and native.perceptron is not None


def entries(jobs: Sequence[FitJob]) -> Entries | None:
    """What is not 0 in the rows of all jobs, if that is the faster way to train them, and a way
    that their noise allows.
    """
    rows, plan = jobs[0].track.rows, jobs[0].plan
    if not known(plan) or plan.modules or any(job.track.rows is not rows for job in jobs):
        return None
    specs = [spec for job in jobs for spec in job.setting.specs if isinstance(spec, Drop)]
    if any(by_batch(spec) or shifts(spec) for spec in specs):
        return None
    return rows.entries if rows.sparse or plan.epochs >= _EPOCHS else None


class Adam:
    """Steps on a population's weights. ``moments``: buffers like theirs; ``rates``: of each
    network.
    """

    def __init__(
        self, population: Population, moments: Sequence[Tensor], rates: Sequence[float]
    ) -> None:
        self.plan = _plan(population)
        self.moments = moments
        self.rates = torch.tensor(rates, dtype=torch.float64)

    def __call__(
        self, decays: Tensor, correction: float, beta_1: float, beta_2: float, epsilon: float
    ) -> Tensor:
        """One step, and the sum of the squares of each network's weights before it, float64 [m].

        ``decays``: what of a weight is added to its gradient, float64 [m]. ``correction``: of the
        moments' bias.
        """
        assert native.adam is not None
        squares, rates = torch.empty_like(self.rates), self.rates * correction
        buffers = (self.plan, *self.moments, rates, decays, squares)
        native.adam(*(buffer.data_ptr() for buffer in buffers), beta_1, beta_2, epsilon)
        return squares


def adam(population: Population, moments: Sequence[Tensor], rates: Sequence[float]) -> Adam | None:
    """The native way; None where there is none."""
    return Adam(population, moments, rates) if native.adam is not None else None


def scales(maps: Sequence[Map]) -> bool:
    """Does all noise multiply, row by row?"""
    return not any(
        isinstance(noise, Kept) or (noise is not None and noise[1] is not None) for noise in maps
    )


def _plan(
    population: Population, kinds: Sequence[int] = (0, 0), entries: Entries | None = None
) -> Tensor:
    """What the kernels know of networks that lie where they do."""
    where = [t.data_ptr() for t in (population.flat, population.gradient, *(entries or ()))]
    return torch.tensor(
        [
            population.m,
            population.layers,
            *kinds,
            *where,
            *(() if entries else (0, 0, 0)),
            *population.units,
        ]
    )


def _place(t: Tensor) -> tuple[int, int]:
    """Where a tensor lies, and how far it is from one network to the next."""
    return t.data_ptr(), t.stride(0) if t.dim() == 3 and t.shape[0] > 1 else 0
