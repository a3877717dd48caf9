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
    """Build the Q network of DroQ: Linear, Dropout, LayerNorm and ReLU per layer, then Linear.

    Dropout before layer normalization, at a small rate, lets few such networks replace the ensemble
    of ten of REDQ. Two of them form the minimum of the targets. Dropout remains active in the
    target networks too, whatever their mode: ``with thinned.sampling(target): ...``.

    Args:
        inputs: The number of input features, at least 1.
        outputs: The number of outputs, at least 1.
        hidden: The widths of the hidden layers, at least one.
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.01 in the paper, and
            0.0001 for Hopper.

    Returns:
        A ``torch.nn.Sequential`` that maps [b, inputs] to [b, outputs].

    Raises:
        InputError: Where a size is not a whole number of at least 1, or ``hidden`` is empty.

    Example:
        >>> import thinned.nn as tnn
        >>> [type(layer).__name__ for layer in tnn.droq(8, hidden=(16,), p=0.01)]
        ['Linear', 'Dropout', 'LayerNorm', 'ReLU', 'Linear']

    Reference:
        Hiraoka, Imagawa, Hashimoto, Onishi, Tsuruoka 2022, "Dropout Q-functions for doubly
        efficient reinforcement learning".
    """
    sizes = [whole(inputs, "inputs", 1), *(whole(n, "hidden", 1) for n in hidden)]
    if len(sizes) < 2:
        raise InputError("droq needs at least one hidden layer, but got none")
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), Dropout(p), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], whole(outputs, "outputs", 1)))
