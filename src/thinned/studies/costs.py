"""The cost of each method: time and memory of a training step of one network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from ..train import Rows, Split
from ..train.augment import augment
from ..train.data import epoch_order
from ..train.fit import mean_losses
from ..train.network_group import SingleNetwork
from ..train.updates import Updates
from .design import PILOT_LR, Settings, context, usable_methods
from .methods import STUDY_METHODS
from .records import Record

STEPS, WARMUP = 30, 6


class Probe:
    """The network of one method at its middle strength, for measurements."""

    def __init__(self, method: str, settings: Settings, split: Split) -> None:
        c = replace(context(settings, split, 0, settings.lr or PILOT_LR[0]), count=1)
        recipe = STUDY_METHODS[method].candidates(c)[0].recipe
        self.method, self.split, self.recipe = method, split, recipe
        self.network = SingleNetwork(recipe, split)
        self.updates = Updates(self.network, STEPS)
        self.smoothing = torch.tensor([recipe.label_smoothing])
        self.times: list[float] = []

    def loss(self, rows: Rows, step: int) -> Tensor:
        """The training loss of a batch."""
        x = (
            augment(rows.dense_x, [self.recipe.augment], self.split.image, 0, step, rows.ids)
            if self.recipe.augment
            else rows.dense_x
        )
        return mean_losses(
            self.network.forward(x, rows.ids, step), rows.y, self.split.task, self.smoothing
        ).sum()

    def step(self, rows: Rows, number: int) -> None:
        """Train on a batch and record the time."""
        began = time.perf_counter()
        self.updates.clear()
        self.loss(rows, number).backward()
        self.updates.step(number)
        self.times.append(1e3 * (time.perf_counter() - began))

    def activation_bytes(self, rows: Rows) -> int:
        """Bytes that autograd keeps for the backward pass, without the parameters."""
        own = {p.tensor.untyped_storage().data_ptr() for p in self.network.parameters}
        # by address; the tensors are kept alive so that no address is used twice
        saved: dict[int, Tensor] = {}

        def pack(t: Tensor) -> Tensor:
            if t.untyped_storage().data_ptr() not in own:
                saved[t.untyped_storage().data_ptr()] = t
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            self.loss(rows, 0)
        return sum(t.untyped_storage().nbytes() for t in saved.values())

    def state_bytes(self) -> int:
        """Bytes of the weights and of the state of the optimizer."""
        weights = sum(p.tensor.nbytes for p in self.network.parameters)
        states = self.updates.optimizer.state.values()
        return weights + sum(v.nbytes for s in states for v in s.values() if isinstance(v, Tensor))


def measure(settings: Settings, split: Split, records: Sequence[Record]) -> list[Record]:
    """The costs of each method.

    The median milliseconds of a training step, the bytes that autograd keeps, the bytes of weights
    and optimizer state, and the mean epoch of the lowest validation loss in ``records``.

    Each network is trained alone in this process. The methods take turns step by step, so that a
    slow period of the machine affects all of them alike.
    """
    methods, _ = usable_methods(settings, split)
    rows = split.train.take(epoch_order(len(split.train), 0, 0)[: settings.batch_size])
    probes = [Probe(method, settings, split) for method in methods]
    for step in range(STEPS):
        for probe in probes:
            probe.step(rows, step)
    best: dict[str, list[int]] = {method: [] for method in methods}
    for r in records:
        if r["experiment"] == "methods" and r["method"] in best:
            best[r["method"]].append(r["best_epoch"] + 1)
    return [
        {
            "method": p.method,
            "milliseconds": median(p.times[WARMUP:]),
            "activation_bytes": p.activation_bytes(rows),
            "state_bytes": p.state_bytes(),
            "best_epoch": sum(best[p.method]) / len(best[p.method]) if best[p.method] else None,
        }
        for p in probes
    ]
