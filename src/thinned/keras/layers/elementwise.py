"""Layers that draw for single elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE
from .spec_layer import SpecLayer


@keras.saving.register_keras_serializable(PACKAGE)
class Dropout(SpecLayer):
    """Dropout: zeroes each element with probability ``rate`` while training.

    Inverted scaling (the default, and Keras's): y = m x / (1 - rate) while training, y = x in
    evaluation. Classic scaling: y = m x while training, y = (1 - rate) x in evaluation.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        scale: "inverted" or "classic".
        noise_shape: The shape of the mask, as in Keras: 1 where an axis shares its draws, None or
            the size of the axis otherwise. None draws for each element.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> import numpy as np
        >>> y = keras.ops.convert_to_numpy(Dropout(0.5)(np.ones((2, 50)), training=True))
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to
        prevent neural networks from overfitting", sections 4 and 10;
        :func:`thinned.presets.dropout`.
    """

    config_names = ("rate", "scale", "noise_shape", "seed")

    def __init__(
        self,
        rate: float,
        scale: Literal["inverted", "classic"] = "inverted",
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        arguments.one_of(scale, "scale", ("inverted", "classic"))
        spec = presets.dropout(arguments.rate_of(rate), scale)
        super().__init__(spec, seed=seed, noise_shape=noise_shape, **kwargs)
        self.scale = scale


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianDropout(SpecLayer):
    """Gaussian dropout: y = x * N(1, rate / (1 - rate)) while training, y = x in evaluation.

    Args:
        rate: The rate of the dropout with the same mean and variance, in [0, 1); Keras's own layer
            divides by zero at 1. It may be set at any time.
        noise_shape: The shape of the noise, as in Keras; None draws for each element.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> GaussianDropout(0.2).rate
        0.2

    Reference:
        Srivastava et al. 2014, section 10; :func:`thinned.presets.gaussian_dropout`.
    """

    below_one = True
    config_names = ("rate", "noise_shape", "seed")

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = presets.gaussian_dropout(arguments.rate_of(rate, below_one=True))
        super().__init__(spec, seed=seed, noise_shape=noise_shape, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class UniformDropout(SpecLayer):
    """Uniform dropout (Uout): y = x (1 + r), r ~ U(-beta, beta), while training; y = x in
    evaluation.

    Use it before batch normalization: it hardly shifts the variance.

    Args:
        beta: Half the width of the noise, in [0, 1]; 0.1 in the paper. It may be set at any time.
        noise_shape: The shape of the noise, as in Keras; None draws for each element.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> UniformDropout().beta
        0.1

    Reference:
        Li, Chen, Hu, Yang 2019, "Understanding the disharmony between dropout and batch
        normalization by variance shift"; :func:`thinned.presets.uniform_dropout`.
    """

    config_names = ("beta", "noise_shape", "seed")

    def __init__(
        self,
        beta: float = 0.1,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = presets.uniform_dropout(arguments.rate_of(beta, "beta"))
        super().__init__(spec, seed=seed, noise_shape=noise_shape, **kwargs)

    @property
    def beta(self) -> float:
        """Half the width of the noise, in [0, 1]."""
        return self.rate

    @beta.setter
    def beta(self, beta: float) -> None:
        self.rate = beta


@keras.saving.register_keras_serializable(PACKAGE)
class AlphaDropout(SpecLayer):
    """Alpha dropout for SELU networks: keeps a mean of 0 and a variance of 1.

    At rate 1 the output is zero, where Keras's own layer divides by zero.

    Args:
        rate: The probability of dropping, in [0, 1], 0.05 to 0.1 in the paper; may be set at any
            time.
        noise_shape: The shape of the mask, as in Keras; None draws for each element.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> AlphaDropout(0.05).rate
        0.05

    Reference:
        Klambauer et al. 2017, "Self-normalizing neural networks";
        :func:`thinned.presets.alpha_dropout`.
    """

    config_names = ("rate", "noise_shape", "seed")

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = presets.alpha_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, noise_shape=noise_shape, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class FeatureAlphaDropout(SpecLayer):
    """Alpha dropout of whole channels: one draw for each example and channel.

    Input [b, ..., c] (``channels_last``) or [b, c, ...].

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> FeatureAlphaDropout(0.05, data_format="channels_first").base_spec.of
        'b c *'

    Reference:
        Klambauer et al. 2017; :func:`thinned.presets.feature_alpha_dropout`.
    """

    config_names = ("rate", "data_format", "seed")

    def __init__(
        self,
        rate: float,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = presets.feature_alpha_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, data_format=data_format, min_ndim=2, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class BatchwiseDropout(SpecLayer):
    """Batchwise dropout: one mask for the whole minibatch, a draw for each unit.

    Input [b, ...]. Gradients have more noise than those of dropout at the same rate, so rates are
    smaller.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        scale: "inverted", or "classic", the paper's.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> BatchwiseDropout(0.3, scale="classic").rate
        0.3

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices"; :func:`thinned.presets.batchwise_dropout`.
    """

    config_names = ("rate", "scale", "seed")

    def __init__(
        self,
        rate: float,
        scale: Literal["inverted", "classic"] = "inverted",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        arguments.one_of(scale, "scale", ("inverted", "classic"))
        spec = presets.batchwise_dropout(arguments.rate_of(rate), scale)
        super().__init__(spec, seed=seed, **kwargs)
        self.scale = scale
