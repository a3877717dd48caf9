"""The layer that drops words of an embedding."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...algebra.drop import Drop
from ...algebra.law import Bernoulli
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, RatedLayer

_WORDS = Drop(Bernoulli(0.5), per="v", of="v")


@keras.saving.register_keras_serializable(PACKAGE)
class EmbeddingDropout(RatedLayer, keras.layers.Wrapper):
    """Embedding dropout: zeroes the vectors of whole words, everywhere in the batch at once.

    Each call makes one draw for each word of the table. Kept vectors are divided by 1 - rate, and
    evaluation is the embedding itself. Where ``mask_zero`` of the embedding is set, the padding id
    0 is never dropped or scaled, and the mask is passed on. Input: ids of any shape; output
    [*ids.shape, d]. To drop single tokens see :class:`WordDropout`.

    Args:
        layer: A keras Embedding, which keeps its weights, such as ``Embedding(10_000, 400,
            mask_zero=True)``.
        rate: The probability of dropping a word, in [0, 1], 0.1 in AWD-LSTM; may be set at any
            time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or ``layer`` is no Embedding. It is a
            ValueError.

    Example:
        >>> EmbeddingDropout(keras.layers.Embedding(10_000, 400), 0.1).rate
        0.1

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks", section 4.2.
    """

    def __init__(
        self, layer: keras.Layer, rate: float = 0.1, seed: int | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(layer, keras.layers.Embedding):
            rule = "Expected a keras.layers.Embedding."
            raise arguments.invalid("layer", rule, type(layer).__name__)
        super().__init__(layer, **{"autocast": False, **kwargs})
        self.start(rate, seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        ids = ops.convert_to_tensor(inputs)
        if not keras.backend.is_int_dtype(keras.backend.standardize_dtype(ids.dtype)):
            ids = ops.cast(ids, "int32")  # as Embedding does
        y = self.layer(ids)
        if not training:
            return y
        dtype = engine.noise_dtype(y)
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
