"""The layer around an embedding whose words fall."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...algebra.drop import Drop as Point
from ...algebra.law import Bernoulli
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, Noisy

_WORDS = Point(Bernoulli(0.5), per="v", of="v")


@keras.saving.register_keras_serializable(PACKAGE)
class EmbeddingDropout(Noisy, keras.layers.Wrapper):
    """An embedding whose words fall: one coin a call for each word of the table, wherever the word
    stands in the batch.

    ``layer``: a keras Embedding, whose weights these are: ``EmbeddingDropout(Embedding(10_000, 400,
    mask_zero=True), 0.1)``. Where its ``mask_zero`` is set, 0 pads, never falls and is not scaled;
    the mask is passed on. ``rate`` in [0, 1], 0.1 in AWD-LSTM; survivors are divided by 1 - rate,
    and evaluation is the plain embedding.

    Input: ids of any shape; output [*ids.shape, d]. For tokens that fall one by one see
    :class:`WordDropout`. Gal and Ghahramani 2016, section 4.2. Raises :class:`thinned.InputError`,
    a ValueError.
    """

    def __init__(
        self, layer: keras.Layer, rate: float = 0.1, seed: int | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(layer, keras.layers.Embedding):
            raise arguments.invalid(
                "layer", "Expected a keras.layers.Embedding.", type(layer).__name__
            )
        super().__init__(layer, **{"autocast": False, **kwargs})
        self.start(rate, seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        ids = ops.convert_to_tensor(inputs)
        if not keras.backend.is_int_dtype(keras.backend.standardize_dtype(ids.dtype)):
            ids = ops.cast(ids, "int32")  # as Embedding does
        y = self.layer(ids)
        if not training:
            return y
        dtype = engine.wide(y)
        gain = engine.factor(
            (self.layer.input_dim,), _WORDS, self.now(), self.seed_generator, dtype
        )
        gain = ops.take(gain, ids, axis=0)
        if self.layer.mask_zero:
            gain = ops.where(ops.equal(ids, 0), ops.ones_like(gain), gain)
        gain = ops.expand_dims(gain, -1)
        return ops.cast(ops.where(gain > 0, ops.cast(y, dtype) * gain, 0.0), y.dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
