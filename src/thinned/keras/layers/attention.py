"""Layers that drop attention heads, or keys."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, RatedLayer, ThinnedLayer, floating

_DROPOUT = dropout(0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class DropHead(RatedLayer, keras.layers.Layer):
    """DropHead: drops whole attention heads, and scales the others to keep the sum over heads.

    Input [b, ...] with the heads along ``axis``, before the output projection. It makes one draw
    for each example and head; kept heads are multiplied by heads / (the number of kept heads).
    Where every head of an example would be dropped, all are kept. Evaluation is the input. For
    Keras's MultiHeadAttention, which does not show its heads, use :class:`DropHeadAttention`.

    Args:
        rate: The probability of dropping a head, in [0, 1); may be set at any time.
        axis: The axis of the heads: -2 for [b, t, heads, d], Keras's order; 1 for
            [b, heads, t, d].
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the input has no such axis. It is a
            ValueError.

    Example:
        >>> DropHead(0.2, axis=1).axis
        1

    Reference:
        Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead: a regularization method for transformer
        models".
    """

    below_one = True
    config_names = ("rate", "axis", "seed")

    def __init__(self, rate: float, axis: int = -2, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            rule = "Expected an integer other than 0, the axis of the examples."
            raise arguments.invalid("axis", rule, axis)
        self.axis = axis
        self.start(rate, seed)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        shape, dtype = self._mask_shape(tuple(ops.shape(x))), engine.noise_dtype(x)
        keep = engine.bernoulli_mask(shape, _DROPOUT, self.now(), self.seed_generator, dtype=dtype)
        keep = ops.cast(_keep_at_least_one(keep, keep, self.axis), dtype)
        gain = keep * (shape[self.axis] / ops.sum(keep, self.axis, keepdims=True))
        return ops.cast(ops.where(keep > 0, ops.cast(x, dtype), 0.0) * gain, x.dtype)

    def _mask_shape(self, shape: Any) -> Any:
        if not -len(shape) < self.axis < len(shape) or self.axis % len(shape) == 0:
            raise InputError(
                f"DropHead needs heads along axis {self.axis}, but got an input of {len(shape)} "
                "axes"
            )
        return tuple(n if i in (0, self.axis % len(shape)) else 1 for i, n in enumerate(shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        self._mask_shape(tuple(input_shape))
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class DropHeadAttention(ThinnedLayer, keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention with :class:`DropHead` between the values and the output
    projection.

    Everything else is Keras's layer, including its weights and files:
    ``DropHeadAttention(8, 64, head_rate=0.1, dropout=0.1)``.

    Args:
        num_heads: The number of attention heads.
        key_dim: The size of each head for queries and keys.
        *args: Further arguments of ``keras.layers.MultiHeadAttention``, by position.
        head_rate: The probability of dropping a head, in [0, 1); may be set at any time.
        seed: An integer that fixes the draws of both kinds of noise; None takes a random one.
        **kwargs: Further arguments of ``keras.layers.MultiHeadAttention``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropHeadAttention(8, 64, head_rate=0.1).head_rate
        0.1

    Reference:
        Zhou et al. 2020, "Scheduled DropHead: a regularization method for transformer models".
    """

    config_names = ("head_rate",)

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        *args: Any,
        head_rate: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, key_dim, *args, seed=seed, **kwargs)
        rate = arguments.rate_of(head_rate, "head_rate", below_one=True)
        self.heads = DropHead(
            rate, seed=arguments.seed_of(seed), dtype=self.dtype_policy, name="heads"
        )

    @property
    def head_rate(self) -> float:
        """The probability of dropping a head."""
        return self.heads.rate

    @head_rate.setter
    def head_rate(self, rate: float) -> None:
        self.heads.rate = rate

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        heads, scores = super()._compute_attention(
            query, key, value, attention_mask, training, *args, **kwargs
        )
        return self.heads(heads, training=bool(training)), scores


@keras.saving.register_keras_serializable(PACKAGE)
class DropKey(RatedLayer, keras.layers.Layer):
    """DropKey: sets attention scores to -inf before the softmax, so that the others still sum to 1.

    Input: scores [b, ..., keys], with a draw for each element. Where all keys of a query would be
    dropped, all are kept. Evaluation is the input. Mask the padding after this layer, or use
    :class:`DropKeyAttention`, which takes masks.

    Args:
        rate: The probability of dropping a key, in [0, 1); may be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropKey(0.1).rate
        0.1

    Reference:
        Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5.
    """

    below_one, kind = True, "attention"

    def __init__(self, rate: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start(rate, seed)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        keep = engine.bernoulli_mask(tuple(ops.shape(x)), _DROPOUT, self.now(), self.seed_generator)
        return ops.where(_keep_at_least_one(keep, keep, -1), x, ops.full_like(x, -math.inf))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class DropKeyAttention(RatedLayer, keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention with :class:`DropKey` on its keys.

    It makes one draw for each example, head, query and key. Of the keys that the masks allow a
    query, all are kept where all would be dropped. Everything else is Keras's layer, including its
    weights and files: ``DropKeyAttention(8, 64, key_rate=0.1)``; its ``dropout`` drops
    probabilities after the softmax, and both may be set.

    Args:
        num_heads: The number of attention heads.
        key_dim: The size of each head for queries and keys.
        *args: Further arguments of ``keras.layers.MultiHeadAttention``, by position.
        key_rate: The probability of hiding a key, in [0, 1); may be set at any time.
        seed: An integer that fixes the draws of both kinds of noise; None takes a random one.
        **kwargs: Further arguments of ``keras.layers.MultiHeadAttention``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropKeyAttention(8, 64, key_rate=0.1).key_rate
        0.1

    Reference:
        Li et al. 2023, "DropKey", equation 5.
    """

    below_one, kind = True, "attention"
    config_names = ("key_rate",)

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        *args: Any,
        key_rate: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, key_dim, *args, seed=seed, **kwargs)
        self.start(arguments.rate_of(key_rate, "key_rate", below_one=True), seed)

    @property
    def key_rate(self) -> float:
        """The probability of hiding a key; the same as :attr:`rate`."""
        return self.rate

    @key_rate.setter
    def key_rate(self, rate: float) -> None:
        self.rate = rate

    def _compute_attention(
        self,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if training:
            attention_mask = self._key_mask(ops.shape(query), ops.shape(key), attention_mask)
        return super()._compute_attention(
            query, key, value, attention_mask, training, *args, **kwargs
        )

    def _key_mask(self, query: Any, key: Any, mask: Any) -> Any:
        """The keys that each query sees: bool [b, heads, *queries, *keys], the shape of scores.

        ``query`` and ``key`` are shapes.
        """
        over = [axis % len(query) for axis in self._attention_axes]
        rest = [n for axis, n in enumerate(query[:-1]) if axis not in over]
        shape = (*rest, *(query[axis] for axis in over), *(key[axis] for axis in over))
        keep = engine.bernoulli_mask(shape, _DROPOUT, self.now(), self.seed_generator)
        keys = tuple(range(-len(over), 0))
        if mask is None:
            return _keep_at_least_one(keep, keep, keys)
        mask = ops.cast(mask, "bool")
        while len(mask.shape) < len(shape):
            mask = ops.expand_dims(mask, -2 * len(over) - 1)
        allowed = ops.logical_and(mask, keep)
        return ops.logical_and(mask, _keep_at_least_one(keep, allowed, keys))


def _keep_at_least_one(keep: Any, allowed: Any, axes: Any) -> Any:
    """``keep``, with True along ``axes`` wherever ``allowed`` has no True there."""
    return ops.logical_or(keep, ops.logical_not(ops.any(allowed, axes, keepdims=True)))
