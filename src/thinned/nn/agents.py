"""Dropout in reinforcement learning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from .._errors import InputError, whole
from ..algebra.schedule import Schedule
from .dropout import Dropout


def droq(
    inputs: int, outputs: int = 1, hidden: Sequence[int] = (256, 256), p: float | Schedule = 0.01
) -> nn.Sequential:
    """DroQ's Q network: Linear, Dropout, LayerNorm, ReLU for each of ``hidden``, then Linear.

    Dropout before layer normalisation, with a small rate (0.01; 0.0001 for Hopper), lets few such
    networks do the work of REDQ's ensemble of ten. Two of them make the minimum of the targets;
    dropout stays on in the target networks too, whatever their mode: ``with
    thinned.sampling(target): ...``.

    Hiraoka, Imagawa, Hashimoto, Onishi, Tsuruoka 2022, "Dropout Q-functions for doubly efficient
    reinforcement learning".
    """
    sizes = [whole(inputs, "inputs", 1), *(whole(n, "hidden", 1) for n in hidden)]
    if len(sizes) < 2:
        raise InputError("droq needs at least one hidden layer, but got none")
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), Dropout(p), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], whole(outputs, "outputs", 1)))
