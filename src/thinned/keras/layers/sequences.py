"""The layer that drops features of whole sequences."""

from __future__ import annotations

from typing import Any

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE
from .spec_layer import SpecLayer


@keras.saving.register_keras_serializable(PACKAGE)
class LockedDropout(SpecLayer):
    """Locked (variational) dropout: one mask for each example and feature, for all time steps.

    Use it between recurrent layers and on their input and output. Input [b, t, d].

    Args:
        rate: The probability of dropping, in [0, 1], 0.3 to 0.5 in the papers; may be set at any
            time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> LockedDropout(0.4).base_spec.per
        'b d'

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks"; Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language
        models"; :func:`thinned.presets.locked_dropout`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        spec = presets.locked_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, ndim=3, **kwargs)
