"""One perceptron as modules of :mod:`thinned.nn`, trained by autograd.

It serves the methods that no spec expresses, and is slower than the population.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn as torch_nn

from .. import nn
from .._errors import InputError
from ..algebra.key import Key, stream_of
from ..algebra.schedule import SCHEDULES
from ..functional import core
from ..nn.information import InformationDropout
from ..nn.keys import key as assign_key
from ..nn.learned import Learned
from ..nn.modes import sampling
from ..nn.module import dropout_modules
from .methods import linears, network
from .network import Population, losses
from .records import FitJob
from .specs import Points
from .updates import Updates

State = dict[str, np.ndarray]  # what methods hold besides weights and biases, by name


class Modular:
    """The network of one job, for methods. Specs use :class:`thinned.sklearn.stacked.Stacked`."""

    entries = None  # it takes dense rows

    def __init__(self, job: FitJob, population: Population) -> None:
        self.job, self.plan, self.population = job, job.plan, population
        weights, biases = _split(population)
        layers = linears(weights, biases)
        self.net = network(layers, self.plan.activation, job.setting.specs, job.setting.seed)
        self.learned = _further(self.net, layers)
        same = load(self.net, self.learned, job.state, job.anchored)
        self.flat = torch.cat(
            [torch.zeros(0), *(p.detach().reshape(-1) for p in self.learned.values())]
        )
        self.gradient = torch.zeros_like(self.flat)
        self._share(layers)
        memory = job.memory if same or not self.learned else None
        self.updates = Updates(
            self.plan, population, [job.setting], (self.flat, self.gradient), memory
        )
        self.costly = [
            layer for _, layer in dropout_modules(self.net) if isinstance(layer, Learned)
        ]
        self.key = assign_key(self.net, job.setting.seed)
        track = job.track
        self.examples = float(
            self.plan.rows
            if track.weight is None
            else track.weight[track.index].sum().clamp_min(1e-30)
        )

    def _share(self, layers: Sequence[torch_nn.Linear]) -> None:
        """Put what is learned into one buffer, and every gradient into a buffer's memory."""
        n = len(layers)
        for layer, w, b in zip(
            layers, self.population.gradients[:n], self.population.gradients[n:], strict=True
        ):
            layer.weight.grad, layer.bias.grad = w[0], b[0, 0]
        sizes = [p.numel() for p in self.learned.values()]
        for p, value, slope in zip(
            self.learned.values(), self.flat.split(sizes), self.gradient.split(sizes), strict=True
        ):
            p.data = value.view(p.shape)
            p.grad = slope.view(p.shape)

    def draw(self, places: list[Tensor], first: int) -> list[tuple[int, Tensor]]:
        """Each batch's step and rows, from the epoch's row ``first`` on; a row's name is its place
        among the training rows.
        """
        size = self.plan.batch_size
        return list(enumerate(places[0].split(size), self.job.step + first // size))

    def learn(self, x: Tensor, y: Tensor, share: Tensor, drawn: Any) -> Tensor:
        """Write down a batch's gradients, and return its loss; ``share``: of each row in it,
        ``drawn``: of :meth:`draw`.
        """
        step, ids = drawn
        self.key.at(step, samples=ids)
        self.net.train()
        sums, spread = settle(self.net(x), self.plan.head)
        loss, delta = losses(sums.detach(), y, share, self.plan.head)
        roots, slopes = [sums], [delta]
        for cost in (None if spread is None else spread @ share[:, 0], self._divergence(step)):
            if cost is not None:
                loss = loss + cost.detach()
                roots.append(cost)
                slopes.append(torch.ones(()))
        self.population.gradient.zero_()
        self.gradient.zero_()
        torch.autograd.backward(roots, slopes)
        return loss

    def _divergence(self, step: int) -> Tensor | None:
        weight = self.plan.divergence
        weight = weight(step) if isinstance(weight, SCHEDULES) else float(weight)
        if not weight or not self.costly:
            return None
        each = [
            h.divergence() / (1.0 if isinstance(h, InformationDropout) else self.examples)
            for h in self.costly
        ]
        return weight * torch.stack(each).sum()

    def evaluate(self, x: Tensor) -> Tensor:
        """Sums of the last layer without noise."""
        self.net.eval()
        return settle(self.net(x), self.plan.head)[0]

    def state(self) -> State:
        return {
            name: value.detach().numpy().copy()
            for name, value in held(self.net, self.learned).items()
        }


def settle(outputs: Any, head: str) -> tuple[Tensor, Tensor | None]:
    """The last sums, and what their variance adds to each row's loss, where the network gives a
    mean and a variance.

    The squared error's mean has a term for the variance; probabilities are those of sums divided by
    sqrt(1 + pi var / 8), which for one class is :func:`thinned.functional.sigmoid_mean`.
    """
    if isinstance(outputs, Tensor):
        return outputs, None
    mean, var = outputs
    if head == "identity":
        return mean, 0.5 * var.mean(-1)
    return mean / (1.0 + math.pi / 8.0 * var).sqrt(), None


def _split(population: Population) -> tuple[list[Tensor], list[Tensor]]:
    n = population.layers
    return [w[0] for w in population.parts[:n]], [b[0, 0] for b in population.parts[n:]]


def _further(
    net: torch_nn.Module, layers: Sequence[torch_nn.Linear]
) -> dict[str, torch_nn.Parameter]:
    """Return what is learned besides the weights and biases of ``layers``, by name."""
    own = {id(p) for layer in layers for p in layer.parameters()}
    return {name: p for name, p in net.named_parameters() if id(p) not in own}


def held(net: torch_nn.Module, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a network holds besides weights and biases: learned parameters and anchors."""
    return {**learned, **dict(net.named_buffers())}


@torch.no_grad()
def load(
    net: torch_nn.Module, learned: Mapping[str, Tensor], state: Mapping[str, Any], anchors: bool
) -> bool:
    """Take what was learned, and with ``anchors`` what weights are pulled to; False where it is of
    another network.
    """
    buffers = dict(net.named_buffers()) if anchors else {}
    wanted = {**learned, **buffers}
    if any(
        name not in state or state[name].shape != tuple(value.shape)
        for name, value in wanted.items()
    ):
        return False
    for name, value in wanted.items():
        value.copy_(torch.from_numpy(np.asarray(state[name])))
    return True


def check(units: Sequence[int], activation: str, specs: Points) -> None:
    """Raise :class:`thinned.InputError` where no network can be made so."""
    weights = [torch.zeros(o, i) for i, o in pairwise(units)]
    network(linears(weights, [torch.zeros(o) for o in units[1:]]), activation, specs, 0)


class Fitted:
    """A fitted network for prediction, in the dtype of the rows.

    ``step``: the last of training; its rates are kept. ``cells``: the most numbers that a row
    becomes while noise is drawn. Raises :class:`thinned.InputError` where ``state``
    was saved with another ``dropout`` than ``specs``.
    """

    def __init__(
        self,
        coefs: Any,
        intercepts: Any,
        activation: str,
        head: str,
        specs: Points,
        state: State,
        seed: int,
        step: int,
        dtype: Any,
    ) -> None:
        parts = [
            [torch.from_numpy(np.asarray(part, dtype)) for part in some]
            for some in (coefs, intercepts)
        ]
        layers = linears([w.t() for w in parts[0]], parts[1])
        self.net = network(layers, activation, specs, seed).to(parts[0][0].dtype)
        if not load(self.net, _further(self.net, layers), state, True):
            raise InputError(
                "dropout is another than when this was fitted, and holds values that were not "
                "learned; fit again"
            )
        nn.step(self.net, step)
        for _, layer in dropout_modules(self.net):
            if getattr(layer, "schedule", None) is not None:
                # the draws to come are no steps of training
                layer.schedule = None  # type: ignore[attr-defined]
        self.net.requires_grad_(False).eval()
        self.head, self.seed = head, seed
        drawn = [
            layer
            for _, layer in dropout_modules(self.net)
            if isinstance(layer, nn.DropConnect) and layer.per_example
        ]
        each = [layer.weight.numel() for layer in drawn if layer.sampling == "exact"]
        self.cells = max([max(w.shape) for w in parts[0]] + each)
        self.mc = torch_nn.ModuleDict({"mc": self.net})  # for streams of its own
        self.key = assign_key(self.mc, seed)

    def sums(self, x: Tensor, start: int, samples: Tensor | None) -> Tensor:
        """The last sums [networks, b, outputs] of rows from ``start`` on: of thinned networks, or
        of the one without noise.
        """
        if samples is None:
            return settle(self.net(x), self.head)[0][None]
        with sampling(self.mc):
            return torch.stack(
                list(self._drawn(x, torch.arange(start, start + len(x)), samples.tolist()))
            )

    def _drawn(self, x: Tensor, ids: Tensor, samples: Sequence[int]) -> Iterator[Tensor]:
        for sample in samples:
            self.key.at(sample, samples=ids)
            z = self.net(x)
            if not isinstance(z, Tensor):  # the Gaussian that stands for all masks
                mean, var = z
                key = Key(self.seed, stream_of("mc.fast"), step=sample, samples=ids)
                z = mean + var.clamp_min(0.0).sqrt() * core.normal(tuple(mean.shape), key, mean)
            yield z
