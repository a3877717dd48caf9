"""Layers on the nodes and messages of graphs."""

from __future__ import annotations

from typing import Any

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE
from .spec_layer import SpecLayer


@keras.saving.register_keras_serializable(PACKAGE)
class DropNode(SpecLayer):
    """DropNode: zeroes the whole feature vector of a node.

    Input: the features of nodes, [n, ...].

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropNode(0.5).base_spec.per
        'n'

    Reference:
        Feng et al. 2020, "Graph random neural networks for semi-supervised learning on graphs";
        :func:`thinned.presets.drop_node`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(presets.drop_node(arguments.rate_of(rate)), seed=seed, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class DropMessage(SpecLayer):
    """DropMessage: zeroes each element of the messages that edges carry.

    Input: the messages, [edges, ...].

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropMessage(0.3).rate
        0.3

    Reference:
        Fang et al. 2023, "DropMessage: unifying random dropping for graph neural networks";
        :func:`thinned.presets.drop_message`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(presets.drop_message(arguments.rate_of(rate)), seed=seed, **kwargs)
