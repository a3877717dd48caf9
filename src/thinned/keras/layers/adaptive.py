"""Layers whose coins depend on what they fall on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, floating, moving, seeded

_TINY = 1.2e-38  # the smallest normal float32


@keras.saving.register_keras_serializable(PACKAGE)
class Standout(keras.layers.Wrapper):
    """Each unit is kept with a probability that its own pre-activation decides:
    ``Standout(Dense(64), "relu")``.

    With h what ``layer`` makes: m activation(h) while training, P(m = 1) = sigmoid(alpha h + beta);
    sigmoid(alpha h + beta) activation(h) in evaluation, the mean. ``layer`` has no activation of
    its own. ``alpha`` 0 is classic dropout that keeps with sigmoid(beta). No gradient runs through
    m; the network of the probabilities is tied to the weights, as in the paper's experiments.

    Ba and Frey 2013, section 3. Raises :class:`thinned.InputError`, a ValueError.
    """

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
            rule = "Expected a layer without an activation, which belongs into `activation`."
            raise arguments.invalid("layer", rule, f"{type(layer).__name__}(activation={own!r})")
        super().__init__(layer, **kwargs)
        self.activation = keras.activations.get(activation)
        self.alpha, self.beta = arguments.real_of(alpha, "alpha"), arguments.real_of(beta, "beta")
        seeded(self, seed)
        self.supports_masking = True

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        h = self.layer(inputs, **kwargs)
        dtype = engine.wide(h)
        y, keep = self.activation(h), ops.sigmoid(self.alpha * ops.cast(h, dtype) + self.beta)
        if not training:
            return ops.cast(ops.cast(y, dtype) * keep, y.dtype)
        drawn = keras.random.uniform(tuple(ops.shape(h)), dtype=dtype, seed=self.seed_generator)
        return ops.where(drawn >= 1.0 - ops.stop_gradient(keep), y, ops.zeros_like(y))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        own = {"alpha": self.alpha, "beta": self.beta, "seed": self.seed}
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation),
            **own,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class Jumpout(keras.layers.Layer):
    """Dropout after ReLU whose rate is drawn, small rates most often, and falls on what is active.

    The rate p = min(``least`` + |N(0, ``sigma``^2)|, ``most``) is drawn once a call, and divided by
    the share of the input above 0, up to ``most``; survivors are times (1 - p')^-``power``, p' the
    divided rate: 0.75 stands between keeping the mean (1) and the variance (0.5). One coin for each
    element of [b, ...]. ``sigma`` in [0, 1], settable at any time; 0 <= ``least`` <= ``most`` < 1.
    Evaluation is the input. The share is the batch's own.

    Wang, Zhou, Bilmes 2019, algorithm 1. Raises :class:`thinned.InputError`, a ValueError.
    """

    sigma = moving("sigma")

    def __init__(
        self,
        sigma: float = 0.05,
        least: float = 0.0,
        most: float = 0.6,
        power: float = 0.75,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sigma = sigma
        self.most = arguments.rate_of(most, "most", below_one=True)
        self.least = arguments.rate_of(least, "least", below_one=True)
        if self.least > self.most:
            raise arguments.invalid(
                "least", f"Expected at most `most`, which is {self.most}.", least
            )
        self.power = arguments.real_of(power, "power")
        seeded(self, seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        dtype, shape = engine.wide(x), tuple(ops.shape(x))
        normal = keras.random.normal((1,) * len(shape), dtype=dtype, seed=self.seed_generator)
        drawn = ops.minimum(
            self.least + ops.cast(self.moving_sigma.state.value, dtype) * ops.abs(normal), self.most
        )
        active = ops.mean(ops.cast(x > 0, dtype))
        p = ops.minimum(drawn / ops.maximum(active, _TINY), self.most)
        stays = keras.random.uniform(shape, dtype=dtype, seed=self.seed_generator) >= p
        return ops.cast(
            ops.where(stays, ops.cast(x, dtype) * (1.0 - p) ** -self.power, 0.0), x.dtype
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = ("sigma", "least", "most", "power", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
