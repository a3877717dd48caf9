"""Layers that cut out a piece: holes of images, spans of sequences."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from .. import arguments
from .base import PACKAGE, Noisy, floating, seeded


@keras.saving.register_keras_serializable(PACKAGE)
class Cutout(keras.layers.Layer):
    """``holes`` squares of side ``size`` of each example are zeroed, in all its channels alike;
    nothing is scaled.

    Input [b, *map, c] (``channels_last``) or [b, c, *map], one to three map axes, after
    normalisation, so that 0 is the mean. ``size`` 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN in
    the paper. A hole's centre is uniform over the places of the map, and what stands over the
    border is cut off; it covers [centre - size // 2, centre - size // 2 + size) along each axis. A
    size that would hide the whole map from every centre is refused. Evaluation is the input, also
    in :func:`thinned.keras.predict`.

    DeVries and Taylor 2017. Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        size: int = 16,
        holes: int = 1,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size, self.holes = (
            arguments.whole_of(size, "size", 1),
            arguments.whole_of(holes, "holes", 1),
        )
        self.data_format = arguments.data_format_of(data_format)
        seeded(self, seed)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=5)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        self.compute_output_shape(tuple(x.shape))
        if not training:
            return x
        shape = self._map(ops.shape(x))
        b, dims = ops.shape(x)[0], len(shape)
        drawn = keras.random.uniform(
            (b, self.holes, dims), dtype="float32", seed=self.seed_generator
        )
        hidden = ops.ones((1, 1), dtype="bool")
        for axis, n in enumerate(shape):
            centre = ops.minimum(
                ops.cast(ops.floor(drawn[:, :, axis, None] * ops.cast(n, "float32")), "int32"),
                n - 1,
            )
            first, places = centre - self.size // 2, ops.arange(n, dtype="int32")
            inside = ops.logical_and(places >= first, places < first + self.size)  # [b, holes, n]
            for _ in range(axis):
                inside = ops.expand_dims(inside, 2)
            hidden = ops.logical_and(ops.expand_dims(hidden, -1), inside)
        hidden = ops.expand_dims(
            ops.any(hidden, 1), 1 if self.data_format == "channels_first" else -1
        )
        return ops.where(hidden, ops.zeros_like(x), x)

    def _map(self, shape: Any) -> tuple[Any, ...]:
        return tuple(shape[2:] if self.data_format == "channels_first" else shape[1:-1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape, half = self._map(input_shape), self.size // 2
        if all(n is not None and half >= n - 1 and self.size - half >= n for n in shape):
            rule = (
                f"Expected less than what hides every map of {' x '.join(map(str, shape))} wholly."
            )
            raise arguments.invalid("size", rule, self.size)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = ("size", "holes", "data_format", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(PACKAGE)
class HiddenCut(Noisy, keras.layers.Layer):
    """One span of neighbouring tokens of each example becomes zero vectors; nothing is scaled.

    Input [b, t, ...], after the feed-forward part of a transformer layer. The span is round(rate t)
    tokens long, and its start is uniform over the places where it fits; padding counts as tokens.
    ``rate`` in [0, 1], 0.1 in the paper. Evaluation is the input. The authors also choose spans by
    attention, which is not here.

    Chen, Shen, Chen, Yang 2021. Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(self, rate: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start(rate, seed)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        b, t = ops.shape(x)[:2]
        length = ops.round(self.now() * ops.cast(t, "float32"))
        room = ops.cast(t, "float32") - length
        drawn = keras.random.uniform((b, 1), dtype="float32", seed=self.seed_generator)
        first = ops.minimum(ops.floor(drawn * (room + 1.0)), room)
        places = ops.cast(ops.arange(t, dtype="int32"), "float32")
        hidden = ops.logical_and(places >= first, places < first + length)
        for _ in x.shape[2:]:
            hidden = ops.expand_dims(hidden, -1)
        return ops.where(hidden, ops.zeros_like(x), x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
