"""Layers whose noise is learned, at a price: variational and information dropout."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, floating, seeded

_KINGMA = (1.16145124, -1.50204118, 0.58629921)
_LEAST = 0.001  # of information dropout's alpha, as in the authors' code


@keras.saving.register_keras_serializable(PACKAGE)
class VariationalDropout(keras.layers.Layer):
    """Gaussian dropout that learns its variance, type A: x (1 + sqrt(alpha) e), e ~ N(0, 1) for
    each element, while training.

    alpha = sigmoid(``logit``) < 1, one for each ``"unit"`` of the last axis, or one for the
    ``"layer"`` (``per``). ``rate``: the first alpha / (1 + alpha), in (0, 0.5); :attr:`rate` reads
    the mean. Evaluation is the input. Input [b, ..., d].

    ``examples``: the number of training examples. The loss that is added is the divergence divided
    by it, for a mean negative log-likelihood: the sum over units of -(log(alpha) / 2 + c1 alpha +
    c2 alpha^2 + c3 alpha^3), section 3.3. ``examples=None`` adds none, and the noise then falls to
    0. Hron et al. 2018 show that the prior makes it a penalty, no Bayesian inference.

    Kingma, Salimans, Welling 2015. Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        rate: float = 0.2,
        examples: int | None = None,
        per: Literal["unit", "layer"] = "unit",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.first = arguments.rate_of(rate, above_zero=True, below_one=True)
        if not self.first < 0.5:
            raise arguments.invalid("rate", "Expected a float value above 0 and below 0.5.", rate)
        self.examples = None if examples is None else arguments.whole_of(examples, "examples", 1)
        self.per = arguments.one_of(per, "per", ("unit", "layer"))
        seeded(self, seed)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] is None:
            raise InputError(
                "VariationalDropout needs a last axis of known size; give Input a shape"
            )
        self.features = int(input_shape[-1])
        first = keras.initializers.Constant(math.log(self.first) - math.log1p(-2.0 * self.first))
        shape = (self.features,) if self.per == "unit" else ()
        self.logit = self.add_weight(name="logit", shape=shape, initializer=first, autocast=False)
        self.built = True

    @property
    def rate(self) -> float:
        """The mean of the rates alpha / (1 + alpha) as they are now."""
        if not self.built:
            return self.first
        alpha = ops.convert_to_numpy(ops.sigmoid(self.logit.value)).astype("float64")
        return float((alpha / (1.0 + alpha)).mean())

    def call(self, inputs: Any, training: bool = False) -> Any:
        if self.examples is not None:
            self.add_loss(self.divergence() / self.examples)
        x = floating(inputs, self)
        if not training:
            return x
        dtype = engine.wide(x)
        spread = ops.sqrt(ops.cast(ops.sigmoid(self.logit.value), dtype))
        noise = keras.random.normal(tuple(ops.shape(x)), dtype=dtype, seed=self.seed_generator)
        return ops.cast(ops.cast(x, dtype) * (1.0 + spread * noise), x.dtype)

    def divergence(self) -> Any:
        """The sum over units of the KL, in nats, up to a constant."""
        logit = self.logit.value
        alpha, (c1, c2, c3) = ops.sigmoid(logit), _KINGMA
        kl = -(0.5 * ops.log_sigmoid(logit) + alpha * (c1 + alpha * (c2 + alpha * c3)))
        return ops.sum(kl) if self.per == "unit" else kl * self.features

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = ("rate", "examples", "per", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(PACKAGE)
class InformationDropout(keras.layers.Wrapper):
    """A second layer says how much noise each activation gets: f(x) exp(alpha e), e ~ N(0, 1) for
    each element, while training.

    ``layer``: f, up to and with its ReLU; ``noise``: a layer whose result has the same shape, such
    as a second convolution; alpha = 0.001 + ``max_alpha`` sigmoid(noise(x)), 0.7 on CIFAR-10.
    Evaluation is f(x), the median of the noise and not its mean. ``beta`` times the divergence,
    -log(alpha / the largest alpha) summed over activations, mean over examples, is added to the
    loss while training: 3 in the authors' code beside a mean cross-entropy; 0 adds none.

    Achille and Soatto 2018. Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        layer: keras.Layer,
        noise: keras.Layer,
        max_alpha: float = 0.7,
        beta: float = 3.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        if not isinstance(noise, keras.Layer):
            raise arguments.invalid("noise", "Expected a keras layer.", repr(noise))
        self.noise = noise
        self.max_alpha = arguments.real_of(max_alpha, "max_alpha", above=0.0)
        self.beta = arguments.real_of(beta, "beta")
        seeded(self, seed)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if not self.noise.built:
            self.noise.build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        y = self.layer(inputs)
        if not training:
            return y
        dtype = engine.wide(y)
        raw = self.noise(inputs)
        if len(raw.shape) != len(y.shape) or tuple(raw.shape)[1:] != tuple(y.shape)[1:]:
            rule = f"Expected a layer whose result is of the activations' shape {tuple(y.shape)}."
            raise arguments.invalid("noise", rule, tuple(raw.shape))
        alpha = _LEAST + self.max_alpha * ops.sigmoid(ops.cast(raw, dtype))
        if self.beta:
            per_example = ops.sum(
                math.log(_LEAST + self.max_alpha) - ops.log(alpha), tuple(range(1, len(y.shape)))
            )
            self.add_loss(self.beta * ops.mean(per_example))
        noise = keras.random.normal(tuple(ops.shape(y)), dtype=dtype, seed=self.seed_generator)
        return ops.cast(ops.cast(y, dtype) * ops.exp(alpha * noise), y.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        own = {"max_alpha": self.max_alpha, "beta": self.beta, "seed": self.seed}
        return {
            **super().get_config(),
            "noise": keras.saving.serialize_keras_object(self.noise),
            **own,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> InformationDropout:
        config = {**config}
        inner = {
            n: keras.saving.deserialize_keras_object(config.pop(n), custom_objects)
            for n in ("layer", "noise")
        }
        return cls(**inner, **config)
