"""What all layers share: a rate that may move, seeds, and what Keras asks of a layer. Abstract; the
layers are final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
from keras import ops

from ..._errors import InputError
from ...algebra.drop import Drop as Point
from ...engines import keras as engine
from .. import arguments
from ..state import Rate, seeds

PACKAGE = "thinned"
LAST = {"b c *": "b * c"}  # a point's layout under channels_last


def seeded(layer: Any, seed: int | None) -> None:
    """Give a layer its ``seed`` and the generator of its draws."""
    layer.seed = arguments.seed_of(seed)
    layer.seed_generator = seeds(layer.seed)


class Noisy:
    """A ``rate`` and a ``seed``, beside a keras layer.

    ``below_one``: rate 1 is refused. ``kind``: what :func:`thinned.keras.find` calls it.
    ``others``: names of further rates.
    """

    below_one = False
    kind = "dropout"
    others: tuple[str, ...] = ()

    def start(self, rate: float, seed: int | None) -> None:
        """To be called after the layer's own ``__init__``."""
        self._rate_now = arguments.rate_of(rate, below_one=self.below_one)
        seeded(self, seed)
        self.moving_rate = Rate(self._rate_now)
        self.supports_masking = True

    @property
    def rate(self) -> float:
        """The probability of dropping; settable at any time, and a compiled step sees it."""
        return self._rate_now

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate_now = arguments.rate_of(rate, below_one=self.below_one)
        self.moving_rate.state.assign(self._rate_now)

    def now(self) -> Any:
        """The rate as a tensor."""
        return self.moving_rate.state.value


def moving(name: str) -> Any:
    """A rate beside ``rate``: settable at any time, and compiled steps read ``self.moving_<name>``."""
    now, state = f"_{name}_now", f"moving_{name}"

    def get(self: Any) -> float:
        rate: float = getattr(self, now)
        return rate

    def put(self: Any, rate: float) -> None:
        setattr(self, now, arguments.rate_of(rate, name))
        if hasattr(self, state):
            getattr(self, state).state.assign(get(self))
        else:
            setattr(self, state, Rate(get(self)))

    return property(get, put, doc=f"The {name.replace('_', ' ')}, in [0, 1]; settable at any time.")


def floating(x: Any, layer: keras.Layer) -> Any:
    """``x`` as a tensor of a floating type, or :class:`thinned.InputError`."""
    x = ops.convert_to_tensor(x)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        raise InputError(
            f"{type(layer).__name__} needs inputs of a floating type, but got {x.dtype}; cast them first"
        )
    return x


class SpecLayer(Noisy, keras.layers.Layer):
    """A layer whose noise is a point on its input."""

    def __init__(
        self,
        spec: Point,
        *,
        seed: int | None = None,
        noise_shape: Sequence[int | None] | None = None,
        data_format: str | None = None,
        ndim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if spec.of in LAST and data_format != "channels_first":
            spec = replace(spec, of=LAST[spec.of])
        self.base_spec = spec
        self.start(spec.rate, seed)
        self.noise_shape = arguments.noise_shape_of(noise_shape)
        if ndim is not None:
            self.input_spec = keras.layers.InputSpec(ndim=ndim)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return engine.mean(x, self.base_spec, self.now())
        return engine.sample(x, self.base_spec, self.now(), self.seed_generator, self.noise_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        engine.check(tuple(input_shape), self.base_spec, self.noise_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
