"""The layer that learns its rate."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
from keras import ops

from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, floating, seeded


@keras.saving.register_keras_serializable(PACKAGE)
class ConcreteDropout(keras.layers.Wrapper):
    """Concrete dropout on the input of ``layer``, with a rate that is learned: Gal, Hron, Kendall
    2017.

    While training the input is times (1 - z) / (1 - p), z = sigmoid((logit p + logit u) / t), u ~
    U(0, 1), one u for each element, or with ``per="channel"`` for each example and channel (last
    axis, or axis 1 under ``channels_first``). Evaluation is the plain layer. p =
    sigmoid(``logit``), one weight of no axes; ``rate``: the first p, in (0, 1); :attr:`rate` reads
    it.

    ``examples``: the number N of training examples. The loss that is added is the divergence
    divided by N, for a mean negative log-likelihood: (K (p log p + q log q) + ``length``^2 / (2 q)
    sum kernel^2) / N, K the number of input features. ``examples=None`` adds none, and p then falls
    to 0. ``temperature`` t > 0: 0.1, or 2/3 as the authors have it on maps.

    Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.1,
        examples: int | None = None,
        length: float = 1e-2,
        temperature: float = 0.1,
        per: Literal["element", "channel"] = "element",
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.first = arguments.rate_of(rate, above_zero=True, below_one=True)
        self.examples = None if examples is None else arguments.whole_of(examples, "examples", 1)
        if not temperature > 0:
            raise arguments.invalid(
                "temperature", "Expected a float above 0; 0.1 is usual.", temperature
            )
        if not length >= 0:
            raise arguments.invalid("length", "Expected a float of at least 0.", length)
        self.temperature, self.length = float(temperature), float(length)
        self.per = arguments.one_of(per, "per", ("element", "channel"))
        self.data_format = arguments.data_format_of(data_format)
        seeded(self, seed)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        first = keras.initializers.Constant(math.log(self.first / (1.0 - self.first)))
        self.logit = self.add_weight(name="logit", shape=(), initializer=first, autocast=False)
        self.features = input_shape[
            1 if self.data_format == "channels_first" and len(input_shape) > 2 else -1
        ]

    @property
    def rate(self) -> float:
        """The rate as it is now."""
        return (
            float(ops.convert_to_numpy(ops.sigmoid(self.logit.value))) if self.built else self.first
        )

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        if self.examples is not None:
            self.add_loss(self.divergence() / self.examples)
        x = self._noisy(floating(inputs, self)) if training else inputs
        return self.layer(x, **kwargs)

    def _noisy(self, x: Any) -> Any:
        dtype = engine.wide(x)
        shape = list(ops.shape(x))
        if self.per == "channel":
            channel = 1 if self.data_format == "channels_first" else len(shape) - 1
            shape = [n if i in (0, channel) else 1 for i, n in enumerate(shape)]
        least = 2.0**-24
        u = keras.random.uniform(
            tuple(shape), least, 1.0 - least, dtype=dtype, seed=self.seed_generator
        )
        logit = ops.cast(self.logit.value, dtype)
        stays = ops.sigmoid(-(logit + ops.log(u) - ops.log1p(-u)) / self.temperature)
        return ops.cast(ops.cast(x, dtype) * stays / ops.sigmoid(-logit), x.dtype)

    def divergence(self) -> Any:
        """The KL of the rate and of the layer's kernels, in nats, up to a constant."""
        logit = self.logit.value
        p, log_q = ops.sigmoid(logit), ops.log_sigmoid(-logit)
        kl = self.features * (p * ops.log_sigmoid(logit) + (1.0 - p) * log_q)
        kernels = [v.value for v in self.layer.trainable_variables if len(v.shape) > 1]
        squares = sum((ops.sum(ops.square(ops.cast(w, logit.dtype))) for w in kernels), 0.0)
        return kl + 0.5 * self.length**2 * squares * ops.exp(-log_q)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        own = ("examples", "length", "temperature", "per", "data_format", "seed")
        return {
            **super().get_config(),
            "rate": self.rate,
            **{name: getattr(self, name) for name in own},
        }
