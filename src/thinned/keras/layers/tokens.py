"""Layers on sequences of tokens, as vectors or as ids."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ... import presets
from ..._errors import InputError
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, RatedLayer, ThinnedLayer, floating
from .spec_layer import SpecLayer

_DROPOUT = presets.dropout(0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class TokenDropout(SpecLayer):
    """Token dropout: zeroes the whole vector of a token; the sequence keeps its length.

    Input [b, t, d]. For ids see :class:`WordDropout`.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> TokenDropout(0.1).base_spec.per
        'b t'

    Reference:
        Sennrich, Haddow, Birch 2016, "Edinburgh neural machine translation systems for WMT 16";
        :func:`thinned.presets.token_dropout`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        spec = presets.token_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, ndim=3, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class WordDropout(RatedLayer, keras.layers.Layer):
    """Word dropout: replaces each token by ``unknown_id`` with probability ``rate``.

    Use it before the embedding. Nothing is scaled, and evaluation is the input. Input and output:
    ids of whole numbers, [b, ...].

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        unknown_id: The id that replaces a dropped one, at least 0.
        keep_id: An id that is never dropped, such as the padding of ``Embedding(mask_zero=True)``;
            None drops every id alike.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the input is not of whole numbers. It is a
            ValueError.

    Example:
        >>> import numpy as np
        >>> layer = WordDropout(1.0, unknown_id=1, keep_id=0)
        >>> keras.ops.convert_to_numpy(layer(np.array([[5, 6, 0]]), training=True)).tolist()
        [[1, 1, 0]]

    Reference:
        Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods for text
        classification"; Bowman et al. 2016, "Generating sentences from a continuous space".
    """

    config_names = ("rate", "unknown_id", "keep_id", "seed")

    def __init__(
        self,
        rate: float,
        unknown_id: int,
        keep_id: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.unknown_id = arguments.whole_of(unknown_id, "unknown_id", 0)
        self.keep_id = None if keep_id is None else arguments.whole_of(keep_id, "keep_id", 0)
        self.start(rate, seed)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        ids = ops.convert_to_tensor(inputs)
        if not keras.backend.is_int_dtype(keras.backend.standardize_dtype(ids.dtype)):
            raise InputError(
                f"WordDropout needs ids of whole numbers, but got {ids.dtype}; for vectors use "
                "TokenDropout"
            )
        if not training:
            return ids
        keep = engine.bernoulli_mask(
            tuple(ops.shape(ids)), _DROPOUT, self.now(), self.seed_generator
        )
        if self.keep_id is not None:
            keep = ops.logical_or(keep, ops.equal(ids, self.keep_id))
        return ops.where(keep, ids, ops.full_like(ids, self.unknown_id))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class PatchDropout(ThinnedLayer, keras.layers.Layer):
    """PatchDropout: a vision transformer trains on a random subset of the patches of each image.

    Of the t - ``prefix`` tokens after the first ``prefix`` it keeps int((1 - rate)(t - prefix)),
    in their order; every subset is equally likely, and each example has its own. Nothing is
    scaled. Input [b, t, d] with positions added and t known; output [b, kept, d] while training,
    the input in evaluation.

    Args:
        rate: The fraction of patches to drop, in [0, 1). It decides shapes, so it cannot be set
            later.
        prefix: How many first tokens are always kept: 1 for a class token, 0 without one.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or no patch would be kept. It is a ValueError.

    Example:
        >>> import numpy as np
        >>> tuple(PatchDropout(0.5)(np.ones((2, 9, 3)), training=True).shape)
        (2, 5, 3)

    Reference:
        Liu et al. 2023, "PatchDropout: economizing vision transformers using patch dropout".
    """

    config_names = ("rate", "prefix", "seed")

    def __init__(
        self, rate: float = 0.5, prefix: int = 1, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rate = arguments.rate_of(rate, below_one=True)
        self.prefix = arguments.whole_of(prefix, "prefix", 0)
        self.start_seeds(seed)
        self.supports_masking = False
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.convert_to_tensor(inputs)
        kept = self._kept_tokens(x.shape)
        if not training or kept == x.shape[1]:
            return x
        patches = x.shape[1] - self.prefix
        uniform = keras.random.uniform(
            (ops.shape(x)[0], patches), dtype="float32", seed=self.seed_generator
        )
        chosen = ops.sort(ops.argsort(uniform, axis=1)[:, : kept - self.prefix], axis=1)
        indices = ops.expand_dims(ops.cast(chosen, "int32") + self.prefix, -1)
        return ops.concatenate(
            [x[:, : self.prefix], ops.take_along_axis(x, indices, axis=1)], axis=1
        )

    def _kept_tokens(self, shape: Any) -> int:
        if shape[1] is None:
            raise InputError("PatchDropout needs a known number of tokens; give Input a shape")
        patches = shape[1] - self.prefix
        count = int((1.0 - self.rate) * patches + 1e-9)
        if count < 1:
            rule = (
                f"Expected a rate and a prefix ({self.prefix}) that leave a patch of {shape[1]} "
                "tokens."
            )
            raise arguments.invalid("rate", rule, self.rate)
        return self.prefix + count

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        kept = self._kept_tokens(inputs.shape)
        length = (
            kept if training else inputs.shape[1] if self.rate == 0.0 or training is False else None
        )
        return keras.KerasTensor(
            (inputs.shape[0], length, inputs.shape[2]), dtype=self.compute_dtype
        )


@keras.saving.register_keras_serializable(PACKAGE)
class HiddenCut(RatedLayer, keras.layers.Layer):
    """HiddenCut: zeroes one span of neighboring tokens of each example.

    Use it after the feed-forward part of a transformer layer. Input [b, t, ...]. The span is
    round(rate t) tokens long, and its start is uniform over the positions where it fits; padding
    counts as tokens. Nothing is scaled, and evaluation is the input. The authors also choose spans
    by attention, which this layer does not.

    Args:
        rate: The length of the span as a fraction of the sequence, in [0, 1], 0.1 in the paper; may
            be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> import numpy as np
        >>> y = HiddenCut(0.25)(np.ones((1, 8, 1)), training=True)
        >>> int(keras.ops.convert_to_numpy(y).sum())
        6

    Reference:
        Chen, Shen, Chen, Yang 2021, "HiddenCut: simple data augmentation for natural language
        understanding with better generalizability".
    """

    def __init__(self, rate: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start(rate, seed)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        b, t = ops.shape(x)[:2]
        length = ops.round(self.now() * ops.cast(t, "float32"))
        last_start = ops.cast(t, "float32") - length
        uniform = keras.random.uniform((b, 1), dtype="float32", seed=self.seed_generator)
        start = ops.minimum(ops.floor(uniform * (last_start + 1.0)), last_start)
        positions = ops.cast(ops.arange(t, dtype="int32"), "float32")
        hidden = ops.logical_and(positions >= start, positions < start + length)
        for _ in x.shape[2:]:
            hidden = ops.expand_dims(hidden, -1)
        return ops.where(hidden, ops.zeros_like(x), x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
