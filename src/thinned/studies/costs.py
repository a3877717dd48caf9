"""What each arm costs: time and memory of a training step of one network by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from ..train import Rows, Split
from ..train.augment import augment
from ..train.data import order
from ..train.fit import losses
from ..train.trainee import Solo
from ..train.updates import Updates
from .design import PILOT_LR, Settings, context, usable
from .methods import ARMS
from .records import Record

STEPS, WARM = 30, 6


class Probe:
    """One arm's network, at its middle strength."""

    def __init__(self, arm: str, settings: Settings, split: Split) -> None:
        recipe = (
            ARMS[arm]
            .candidates(replace(context(settings, split, 0, settings.lr or PILOT_LR[0]), count=1))[
                0
            ]
            .recipe
        )
        self.arm, self.split, self.recipe = arm, split, recipe
        self.solo = Solo(recipe, split)
        self.updates = Updates(self.solo, STEPS)
        self.smoothing = torch.tensor([recipe.label_smoothing])
        self.times: list[float] = []

    def loss(self, rows: Rows, step: int) -> Tensor:
        x = (
            augment(rows.x, [self.recipe.augment], self.split.image, 0, step, rows.ids)
            if self.recipe.augment
            else rows.x
        )
        return losses(
            self.solo.forward(x, rows.ids, step), rows.y, self.split.task, self.smoothing
        ).sum()

    def step(self, rows: Rows, number: int) -> None:
        began = time.perf_counter()
        self.updates.clear()
        self.loss(rows, number).backward()
        self.updates.step(number)
        self.times.append(1e3 * (time.perf_counter() - began))

    def kept(self, rows: Rows) -> int:
        """Bytes that autograd keeps for backward, parameters not counted."""
        own = {p.tensor.untyped_storage().data_ptr() for p in self.solo.parts}
        held: dict[int, Tensor] = {}  # by address, alive, so that no address is used twice

        def pack(t: Tensor) -> Tensor:
            if t.untyped_storage().data_ptr() not in own:
                held[t.untyped_storage().data_ptr()] = t
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            self.loss(rows, 0)
        return sum(t.untyped_storage().nbytes() for t in held.values())

    def state(self) -> int:
        """Bytes of weights and of the optimizer's memory."""
        weights = sum(p.tensor.nbytes for p in self.solo.parts)
        states = self.updates.optimizer.state.values()
        return weights + sum(v.nbytes for s in states for v in s.values() if isinstance(v, Tensor))


def measure(settings: Settings, split: Split, records: Sequence[Record]) -> list[Record]:
    """For each arm: median milliseconds of a step, bytes kept for backward, bytes of state, and
    epochs to the best.

    One network, one process, no population. Arms take turns, so that a slow moment of the machine
    meets all of them. ``epochs``: the mean epoch of the lowest validation loss in ``records``.
    """
    arms, _ = usable(settings, split)
    rows = split.train.take(order(len(split.train), 0, 0)[: settings.batch_size])
    probes = [Probe(arm, settings, split) for arm in arms]
    for step in range(STEPS):
        for probe in probes:
            probe.step(rows, step)
    best: dict[str, list[int]] = {arm: [] for arm in arms}
    for r in records:
        if r["experiment"] == "arms" and r["arm"] in best:
            best[r["arm"]].append(r["best"] + 1)
    return [
        {
            "arm": p.arm,
            "milliseconds": median(p.times[WARM:]),
            "kept": p.kept(rows),
            "state": p.state(),
            "epochs": sum(best[p.arm]) / len(best[p.arm]) if best[p.arm] else None,
        }
        for p in probes
    ]
