"""The layer that cuts holes into images."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from .. import arguments
from .base import PACKAGE, ThinnedLayer, floating


@keras.saving.register_keras_serializable(PACKAGE)
class Cutout(ThinnedLayer, keras.layers.Layer):
    """Cutout: zeroes ``holes`` squares of each example, in all its channels alike.

    Input [b, *map, c] (``channels_last``) or [b, c, *map], with one to three map axes, after
    normalization, so that 0 is the mean. The center of a hole is uniform over the positions of the
    map, and the part beyond the border is cut off; a hole covers
    [center - size // 2, center - size // 2 + size) along each axis. Nothing is scaled. Evaluation
    is the input, also in :func:`thinned.keras.predict`.

    Args:
        size: The side of a square, in elements, at least 1; 16 for CIFAR-10, 8 for CIFAR-100, 20
            for SVHN in the paper. A size that hides the whole map from every center is refused.
        holes: How many squares, at least 1.
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> layer = Cutout(8, holes=2)
        >>> layer.size, layer.holes
        (8, 2)

    Reference:
        DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with
        cutout".
    """

    config_names = ("size", "holes", "data_format", "seed")

    def __init__(
        self,
        size: int = 16,
        holes: int = 1,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = arguments.whole_of(size, "size", 1)
        self.holes = arguments.whole_of(holes, "holes", 1)
        self.data_format = arguments.data_format_of(data_format)
        self.start_seeds(seed)
        self.input_spec = keras.layers.InputSpec(min_ndim=3, max_ndim=5)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        self.compute_output_shape(tuple(x.shape))
        if not training:
            return x
        shape = self._map_sizes(ops.shape(x))
        b, dims = ops.shape(x)[0], len(shape)
        uniform = keras.random.uniform(
            (b, self.holes, dims), dtype="float32", seed=self.seed_generator
        )
        hidden = ops.ones((1, 1), dtype="bool")
        for axis, n in enumerate(shape):
            scaled = ops.floor(uniform[:, :, axis, None] * ops.cast(n, "float32"))
            center = ops.minimum(ops.cast(scaled, "int32"), n - 1)
            first, positions = center - self.size // 2, ops.arange(n, dtype="int32")
            # of shape (b, holes, n):
            inside = ops.logical_and(positions >= first, positions < first + self.size)
            for _ in range(axis):
                inside = ops.expand_dims(inside, 2)
            hidden = ops.logical_and(ops.expand_dims(hidden, -1), inside)
        hidden = ops.expand_dims(
            ops.any(hidden, 1), 1 if self.data_format == "channels_first" else -1
        )
        return ops.where(hidden, ops.zeros_like(x), x)

    def _map_sizes(self, shape: Any) -> tuple[Any, ...]:
        return tuple(shape[2:] if self.data_format == "channels_first" else shape[1:-1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape, half = self._map_sizes(input_shape), self.size // 2
        if all(n is not None and half >= n - 1 and self.size - half >= n for n in shape):
            sizes = " x ".join(map(str, shape))
            rule = f"Expected less than what hides every map of {sizes} wholly."
            raise arguments.invalid("size", rule, self.size)
        return input_shape
