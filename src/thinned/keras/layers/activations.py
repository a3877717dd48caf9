"""Layers with a mask that depends on the activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, ThinnedLayer, floating, rate_property

_TINY = 1.2e-38  # the smallest normal float32


@keras.saving.register_keras_serializable(PACKAGE)
class Standout(ThinnedLayer, keras.layers.Wrapper):
    """Standout: each unit is kept with a probability that its own pre-activation determines.

    With h the output of ``layer``: m activation(h) while training, P(m = 1) = sigmoid(alpha h +
    beta); sigmoid(alpha h + beta) activation(h), the mean, in evaluation. No gradient flows through
    m; the network of the probabilities shares the weights of the layer, as in the paper's
    experiments. Input and output are those of ``layer``: ``Standout(Dense(64), "relu")``.

    Args:
        layer: The layer that computes the pre-activations; it has no activation of its own.
        activation: The activation function, or its name in Keras.
        alpha: The slope of the probability; 0 is classic dropout that keeps with probability
            sigmoid(beta).
        beta: The offset of the probability.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or ``layer`` has an activation. It is a
            ValueError.

    Example:
        >>> layer = Standout(keras.layers.Dense(64), "relu", alpha=0.5)
        >>> layer.alpha
        0.5

    Reference:
        Ba and Frey 2013, "Adaptive dropout for training deep neural networks", section 3.
    """

    config_names = ("alpha", "beta", "seed")

    def __init__(
        self,
        layer: keras.Layer,
        activation: str | Callable[[Any], Any] = "relu",
        alpha: float = 1.0,
        beta: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        own = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if own != "linear":
            rule = "Expected a layer without an activation; pass the activation to `activation`."
            raise arguments.invalid("layer", rule, f"{type(layer).__name__}(activation={own!r})")
        super().__init__(layer, **kwargs)
        self.activation = keras.activations.get(activation)
        self.alpha, self.beta = arguments.real_of(alpha, "alpha"), arguments.real_of(beta, "beta")
        self.start_seeds(seed)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        h = self.layer(inputs, **kwargs)
        dtype = engine.noise_dtype(h)
        y, keep = self.activation(h), ops.sigmoid(self.alpha * ops.cast(h, dtype) + self.beta)
        if not training:
            return ops.cast(ops.cast(y, dtype) * keep, y.dtype)
        uniform = keras.random.uniform(tuple(ops.shape(h)), dtype=dtype, seed=self.seed_generator)
        return ops.where(uniform >= 1.0 - ops.stop_gradient(keep), y, ops.zeros_like(y))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable(PACKAGE)
class Jumpout(ThinnedLayer, keras.layers.Layer):
    """Jumpout: dropout after a ReLU at a rate that is drawn, most often small, for active units.

    The rate p = min(``min_rate`` + |N(0, ``sigma``^2)|, ``max_rate``) is drawn once for each call
    and divided by the fraction of the input above 0 (of the whole batch), up to ``max_rate``. Kept
    elements are multiplied by (1 - p')^-``power``, where p' is the divided rate; a power of 0.75 is
    a compromise between keeping the mean (1) and the variance (0.5). The mask has a draw for each
    element of the input [b, ...]. Evaluation is the input.

    Args:
        sigma: The standard deviation of the rate, in [0, 1]; may be set at any time.
        min_rate: The lowest rate, in [0, max_rate].
        max_rate: The highest rate, below 1.
        power: The exponent of the scale.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> Jumpout(0.05).max_rate
        0.6

    Reference:
        Wang, Zhou, Bilmes 2019, "Jumpout: improved dropout for deep neural networks with ReLUs",
        algorithm 1.
    """

    config_names = ("sigma", "min_rate", "max_rate", "power", "seed")
    sigma = rate_property("sigma")

    def __init__(
        self,
        sigma: float = 0.05,
        min_rate: float = 0.0,
        max_rate: float = 0.6,
        power: float = 0.75,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sigma = sigma
        self.max_rate = arguments.rate_of(max_rate, "max_rate", below_one=True)
        self.min_rate = arguments.rate_of(min_rate, "min_rate", below_one=True)
        if self.min_rate > self.max_rate:
            rule = f"Expected at most `max_rate`, which is {self.max_rate}."
            raise arguments.invalid("min_rate", rule, min_rate)
        self.power = arguments.real_of(power, "power")
        self.start_seeds(seed)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        dtype, shape = engine.noise_dtype(x), tuple(ops.shape(x))
        normal = keras.random.normal((1,) * len(shape), dtype=dtype, seed=self.seed_generator)
        sigma = ops.cast(self.sigma_state.state.value, dtype)
        drawn_rate = ops.minimum(self.min_rate + sigma * ops.abs(normal), self.max_rate)
        active = ops.mean(ops.cast(x > 0, dtype))
        p = ops.minimum(drawn_rate / ops.maximum(active, _TINY), self.max_rate)
        keep = keras.random.uniform(shape, dtype=dtype, seed=self.seed_generator) >= p
        return ops.cast(
            ops.where(keep, ops.cast(x, dtype) * (1.0 - p) ** -self.power, 0.0), x.dtype
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
