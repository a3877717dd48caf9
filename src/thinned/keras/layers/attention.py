"""Layers inside attention: heads that fall, and keys."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, Noisy, floating

_POINT = dropout(0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class DropHead(Noisy, keras.layers.Layer):
    """DropHead: whole attention heads fall, and the rest is scaled so that the sum over heads keeps
    its weight.

    Input [b, ...] with the heads along ``axis``, before the output projection: -2 for [b, t, heads,
    d], Keras's order, 1 for [b, heads, t, d]. One coin for each example and head; survivors are
    times heads / (how many stayed). Where all would fall, all stay. ``rate`` in [0, 1). Keras's
    MultiHeadAttention does not show its heads; its ``dropout`` drops probabilities.

    Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead". Raises :class:`thinned.InputError`, a
    ValueError.
    """

    below_one = True

    def __init__(self, rate: float, axis: int = -2, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise arguments.invalid(
                "axis", "Expected an integer other than 0, which holds the examples.", axis
            )
        self.axis = axis
        self.start(rate, seed)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        shape, dtype = self._coins(tuple(ops.shape(x))), engine.wide(x)
        stays = engine.kept(shape, _POINT, self.now(), self.seed_generator, None, dtype)
        stays = ops.cast(_some(stays, stays, self.axis), dtype)
        gain = stays * (shape[self.axis] / ops.sum(stays, self.axis, keepdims=True))
        return ops.cast(ops.where(stays > 0, ops.cast(x, dtype), 0.0) * gain, x.dtype)

    def _coins(self, shape: Any) -> Any:
        if not -len(shape) < self.axis < len(shape) or self.axis % len(shape) == 0:
            raise InputError(
                f"DropHead needs heads along axis {self.axis}, but got an input of {len(shape)} axes"
            )
        return tuple(n if i in (0, self.axis % len(shape)) else 1 for i, n in enumerate(shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        self._coins(tuple(input_shape))
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "axis": self.axis, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class DropHeadAttention(keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention whose heads fall by :class:`DropHead`, between the values and the
    output projection.

    ``head_rate`` in [0, 1), settable at any time; everything else, weights and files among it, is
    Keras's layer: ``DropHeadAttention(8, 64, head_rate=0.1, dropout=0.1)``. ``seed`` is that of
    both kinds of noise. Zhou et al. 2020. Raises :class:`thinned.InputError`, a ValueError.
    """

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
        """The probability that a head falls."""
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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "head_rate": self.head_rate}


@keras.saving.register_keras_serializable(PACKAGE)
class DropKey(Noisy, keras.layers.Layer):
    """DropKey: attention scores fall to -inf before the softmax, so that the rest still sums to 1.

    Input [b, ..., keys], one coin for each element; where all keys of a query would fall, all stay.
    ``rate`` in [0, 1). Evaluation is the input. Hide what pads after this layer, or use
    :class:`DropKeyAttention`, which knows the masks.

    Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5. Raises :class:`thinned.InputError`,
    a ValueError.
    """

    below_one, kind = True, "attention"

    def __init__(self, rate: float = 0.1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start(rate, seed)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        stays = engine.kept(
            tuple(ops.shape(x)), _POINT, self.now(), self.seed_generator, None, "float32"
        )
        return ops.where(_some(stays, stays, -1), x, ops.full_like(x, -math.inf))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class DropKeyAttention(Noisy, keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention with keys hidden from queries by :class:`DropKey`.

    ``key_rate`` in [0, 1), settable at any time: one coin for each example, head, query and key. Of
    the keys that the masks allow a query, all stay where all would fall. Everything else, weights
    and files among it, is Keras's layer: ``DropKeyAttention(8, 64, key_rate=0.1)``; ``dropout``
    drops probabilities after the softmax, and both may be set. ``seed`` is that of both kinds of
    noise. Li et al. 2023. Raises :class:`thinned.InputError`, a ValueError.
    """

    below_one, kind = True, "attention"

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
        """The probability that a key is hidden; :attr:`rate` is the same."""
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
            attention_mask = self._shown(ops.shape(query), ops.shape(key), attention_mask)
        return super()._compute_attention(
            query, key, value, attention_mask, training, *args, **kwargs
        )

    def _shown(self, query: Any, key: Any, mask: Any) -> Any:
        """Which keys each query sees: bool [b, heads, *queries, *keys], the shape of the scores."""
        over = [axis % len(query) for axis in self._attention_axes]
        rest = [n for axis, n in enumerate(query[:-1]) if axis not in over]
        coins = (*rest, *(query[axis] for axis in over), *(key[axis] for axis in over))
        stays = engine.kept(coins, _POINT, self.now(), self.seed_generator, None, "float32")
        keys = tuple(range(-len(over), 0))
        if mask is None:
            return _some(stays, stays, keys)
        mask = ops.cast(mask, "bool")
        while len(mask.shape) < len(coins):
            mask = ops.expand_dims(mask, -2 * len(over) - 1)
        return ops.logical_and(mask, _some(stays, ops.logical_and(mask, stays), keys))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "key_rate": self.key_rate}


def _some(stays: Any, left: Any, axes: Any) -> Any:
    """The mask, with all where along ``axes`` nothing is ``left``."""
    return ops.logical_or(stays, ops.logical_not(ops.any(left, axes, keepdims=True)))
