"""Layers that learn their noise, at the cost of a KL term in the loss."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, ThinnedLayer, floating

_KINGMA = (1.16145124, -1.50204118, 0.58629921)  # c1, c2, c3 of section 3.3
_LEAST_ALPHA = 0.001  # of information dropout, as in the authors' code


@keras.saving.register_keras_serializable(PACKAGE)
class ConcreteDropout(ThinnedLayer, keras.layers.Wrapper):
    """Concrete dropout on the input of ``layer``: dropout that learns its rate.

    While training the input is multiplied by (1 - z) / (1 - p), z = sigmoid((logit p + logit u) /
    t), u ~ U(0, 1). Evaluation is the layer itself. p = sigmoid(``logit``) is one weight of no
    axes. The loss that is added is the KL term divided by the number N of training examples, for a
    mean negative log-likelihood: (K (p log p + q log q) + ``length``^2 / (2 q) sum kernel^2) / N, K
    the number of input features and q = 1 - p.

    Args:
        layer: The layer that receives the noisy input.
        rate: The first p, in (0, 1); the property :attr:`rate` reads the present one.
        examples: The number N of training examples; None adds no loss, and p then goes to 0.
        length: The prior length scale, at least 0.
        temperature: t, above 0; 0.1, or 2/3 as the authors have it on maps.
        per: "element" draws u for each element, "channel" for each example and channel.
        data_format: Where channels are: "channels_last" (the last axis), "channels_first" (axis 1),
            or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> ConcreteDropout(keras.layers.Dense(64), examples=60_000).rate
        0.1

    Reference:
        Gal, Hron, Kendall 2017, "Concrete dropout".
    """

    config_names = ("rate", "examples", "length", "temperature", "per", "data_format", "seed")

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.1,
        examples: int | None = None,
        length: float = 1e-2,
        temperature: float = 0.1,
        per: Literal["element", "channel"] = "element",
        data_format: Literal["channels_last", "channels_first"] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.first_rate = arguments.rate_of(rate, above_zero=True, below_one=True)
        self.examples = None if examples is None else arguments.whole_of(examples, "examples", 1)
        if not temperature > 0:
            rule = "Expected a float above 0; 0.1 is usual."
            raise arguments.invalid("temperature", rule, temperature)
        if not length >= 0:
            raise arguments.invalid("length", "Expected a float of at least 0.", length)
        self.temperature, self.length = float(temperature), float(length)
        self.per = arguments.one_of(per, "per", ("element", "channel"))
        self.data_format = arguments.data_format_of(data_format)
        self.start_seeds(seed)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        logit = math.log(self.first_rate / (1.0 - self.first_rate))
        initializer = keras.initializers.Constant(logit)
        self.logit = self.add_weight(
            name="logit", shape=(), initializer=initializer, autocast=False
        )
        self.features = input_shape[
            1 if self.data_format == "channels_first" and len(input_shape) > 2 else -1
        ]

    @property
    def rate(self) -> float:
        """The present rate."""
        if not self.built:
            return self.first_rate
        return float(ops.convert_to_numpy(ops.sigmoid(self.logit.value)))

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        if self.examples is not None:
            self.add_loss(self.divergence() / self.examples)
        x = self._add_noise(floating(inputs, self)) if training else inputs
        return self.layer(x, **kwargs)

    def _add_noise(self, x: Any) -> Any:
        dtype = engine.noise_dtype(x)
        shape = list(ops.shape(x))
        if self.per == "channel":
            channel = 1 if self.data_format == "channels_first" else len(shape) - 1
            shape = [n if i in (0, channel) else 1 for i, n in enumerate(shape)]
        least = 2.0**-24  # keeps the logit of u finite
        u = keras.random.uniform(
            tuple(shape), least, 1.0 - least, dtype=dtype, seed=self.seed_generator
        )
        logit = ops.cast(self.logit.value, dtype)
        relaxed_mask = ops.sigmoid(-(logit + ops.log(u) - ops.log1p(-u)) / self.temperature)
        return ops.cast(ops.cast(x, dtype) * relaxed_mask / ops.sigmoid(-logit), x.dtype)

    def divergence(self) -> Any:
        """The KL term of the rate and of the kernels of the layer, in nats, up to a constant."""
        logit = self.logit.value
        p, log_q = ops.sigmoid(logit), ops.log_sigmoid(-logit)
        kl = self.features * (p * ops.log_sigmoid(logit) + (1.0 - p) * log_q)
        kernels = [v.value for v in self.layer.trainable_variables if len(v.shape) > 1]
        squares = sum((ops.sum(ops.square(ops.cast(w, logit.dtype))) for w in kernels), 0.0)
        return kl + 0.5 * self.length**2 * squares * ops.exp(-log_q)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(PACKAGE)
class VariationalDropout(ThinnedLayer, keras.layers.Layer):
    """Variational dropout, type A: Gaussian dropout that learns its variance.

    While training x (1 + sqrt(alpha) e), e ~ N(0, 1) for each element; evaluation is the input.
    alpha = sigmoid(``logit``) < 1. Input [b, ..., d]. The loss that is added is the KL term divided
    by the number of training examples, for a mean negative log-likelihood: the sum over units of
    -(log(alpha) / 2 + c1 alpha + c2 alpha^2 + c3 alpha^3). Hron et al. 2018 show that the prior
    makes it a penalty and not Bayesian inference.

    Args:
        rate: The first alpha / (1 + alpha), in (0, 0.5); the property :attr:`rate` reads the mean
            of the present ones.
        examples: The number of training examples; None adds no loss, and the noise then goes to 0.
        per: "unit" learns an alpha for each unit of the last axis, "layer" one for all.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the last axis has no known size. It is a
            ValueError.

    Example:
        >>> VariationalDropout(0.3, examples=60_000).rate
        0.3

    Reference:
        Kingma, Salimans, Welling 2015, "Variational dropout and the local reparameterization
        trick", section 3.3.
    """

    config_names = ("rate", "examples", "per", "seed")

    def __init__(
        self,
        rate: float = 0.2,
        examples: int | None = None,
        per: Literal["unit", "layer"] = "unit",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.first_rate = arguments.rate_of(rate, above_zero=True, below_one=True)
        if not self.first_rate < 0.5:
            raise arguments.invalid("rate", "Expected a float value above 0 and below 0.5.", rate)
        self.examples = None if examples is None else arguments.whole_of(examples, "examples", 1)
        self.per = arguments.one_of(per, "per", ("unit", "layer"))
        self.start_seeds(seed)

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] is None:
            raise InputError(
                "VariationalDropout needs a last axis of known size; give Input a shape"
            )
        self.features = int(input_shape[-1])
        logit = math.log(self.first_rate) - math.log1p(-2.0 * self.first_rate)
        initializer = keras.initializers.Constant(logit)
        shape = (self.features,) if self.per == "unit" else ()
        self.logit = self.add_weight(
            name="logit", shape=shape, initializer=initializer, autocast=False
        )
        self.built = True

    @property
    def rate(self) -> float:
        """The mean of the present rates alpha / (1 + alpha)."""
        if not self.built:
            return self.first_rate
        alpha = ops.convert_to_numpy(ops.sigmoid(self.logit.value)).astype("float64")
        return float((alpha / (1.0 + alpha)).mean())

    def call(self, inputs: Any, training: bool = False) -> Any:
        if self.examples is not None:
            self.add_loss(self.divergence() / self.examples)
        x = floating(inputs, self)
        if not training:
            return x
        dtype = engine.noise_dtype(x)
        deviation = ops.sqrt(ops.cast(ops.sigmoid(self.logit.value), dtype))
        noise = keras.random.normal(tuple(ops.shape(x)), dtype=dtype, seed=self.seed_generator)
        return ops.cast(ops.cast(x, dtype) * (1.0 + deviation * noise), x.dtype)

    def divergence(self) -> Any:
        """The KL term, summed over units, in nats, up to a constant."""
        logit = self.logit.value
        alpha, (c1, c2, c3) = ops.sigmoid(logit), _KINGMA
        kl = -(0.5 * ops.log_sigmoid(logit) + alpha * (c1 + alpha * (c2 + alpha * c3)))
        return ops.sum(kl) if self.per == "unit" else kl * self.features

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class InformationDropout(ThinnedLayer, keras.layers.Wrapper):
    """Information dropout: a second layer determines how much noise each activation gets.

    While training f(x) exp(alpha e), e ~ N(0, 1) for each element, alpha = 0.001 + ``max_alpha``
    sigmoid(noise(x)). Evaluation is f(x), the median of the noisy output and not its mean. While
    training, ``beta`` times the KL term is added to the loss: -log(alpha / the largest alpha),
    summed over activations, mean over examples.

    Args:
        layer: f, including its ReLU.
        noise: A layer with an output of the same shape, such as a second convolution.
        max_alpha: The largest standard deviation of the logarithm of the noise, above 0; 0.7 on
            CIFAR-10.
        beta: The weight of the KL term, 3 in the authors' code next to a mean cross-entropy; 0 adds
            none.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the two outputs differ in shape. It is a
            ValueError.

    Example:
        >>> dense = keras.layers.Dense
        >>> InformationDropout(dense(8, "relu"), dense(8), max_alpha=0.5).max_alpha
        0.5

    Reference:
        Achille and Soatto 2018, "Information dropout: learning optimal representations through
        noisy computation".
    """

    config_names = ("max_alpha", "beta", "seed")

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
        self.start_seeds(seed)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if not self.noise.built:
            self.noise.build(input_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        y = self.layer(inputs)
        if not training:
            return y
        dtype = engine.noise_dtype(y)
        raw = self.noise(inputs)
        if len(raw.shape) != len(y.shape) or tuple(raw.shape)[1:] != tuple(y.shape)[1:]:
            shape = tuple(y.shape)
            rule = f"Expected a layer with an output in the shape of the activations, {shape}."
            raise arguments.invalid("noise", rule, tuple(raw.shape))
        alpha = _LEAST_ALPHA + self.max_alpha * ops.sigmoid(ops.cast(raw, dtype))
        if self.beta:
            kl = math.log(_LEAST_ALPHA + self.max_alpha) - ops.log(alpha)
            per_example = ops.sum(kl, tuple(range(1, len(y.shape))))
            self.add_loss(self.beta * ops.mean(per_example))
        noise = keras.random.normal(tuple(ops.shape(y)), dtype=dtype, seed=self.seed_generator)
        return ops.cast(ops.cast(y, dtype) * ops.exp(alpha * noise), y.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        noise = keras.saving.serialize_keras_object(self.noise)
        return {**super().get_config(), "noise": noise}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> InformationDropout:
        """The layer of a configuration."""
        config = {**config}
        inner = {
            n: keras.saving.deserialize_keras_object(config.pop(n), custom_objects)
            for n in ("layer", "noise")
        }
        return cls(**inner, **config)
