"""Layers that drop the branch of a residual block."""

from __future__ import annotations

from typing import Any, Literal

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE
from .spec_layer import SpecLayer


@keras.saving.register_keras_serializable(PACKAGE)
class DropPath(SpecLayer):
    """Drop path: drops the whole residual branch of an example; only its skip connection remains.

    Use it on the branch, before the addition: ``x + DropPath(0.1)(branch)``. Input [b, ...].

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time. Typically 0.1 to 0.5
            in the deepest block, less before it (:func:`thinned.presets.linear_rates`).
        scale: "inverted"; or "unscaled", which does not divide by 1 - rate.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropPath(0.2).base_spec.per
        'b'

    Reference:
        Larsson, Maire, Shakhnarovich 2017, "FractalNet"; :func:`thinned.presets.drop_path`.
    """

    config_names = ("rate", "scale", "seed")

    def __init__(
        self,
        rate: float,
        scale: Literal["inverted", "unscaled"] = "inverted",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        arguments.one_of(scale, "scale", ("inverted", "unscaled"))
        super().__init__(presets.drop_path(arguments.rate_of(rate), scale), seed=seed, **kwargs)
        self.scale = scale


@keras.saving.register_keras_serializable(PACKAGE)
class StochasticDepth(SpecLayer):
    """Stochastic depth: drops residual branches while training and scales them by 1 - rate in
    evaluation.

    Use it on the branch, before the addition: ``x + StochasticDepth(0.5)(branch)``.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time. 0.5 in the paper's
            last block, less before it (:func:`thinned.presets.linear_rates`).
        per: "example" draws for each example, "batch" once for the whole minibatch, as the paper.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> StochasticDepth(0.5, per="batch").base_spec.per
        ''

    Reference:
        Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", equations
        2 and 5; :func:`thinned.presets.stochastic_depth`.
    """

    config_names = ("rate", "per", "seed")

    def __init__(
        self,
        rate: float,
        per: Literal["example", "batch"] = "example",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        arguments.one_of(per, "per", ("example", "batch"))
        spec = presets.stochastic_depth(arguments.rate_of(rate), per)
        super().__init__(spec, seed=seed, **kwargs)
        self.per = per
