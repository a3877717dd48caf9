"""The layer that drops attention heads."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .host import PACKAGE, Noisy, floating

_POINT = dropout(0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class DropHead(Noisy, keras.layers.Layer):
    """DropHead: whole attention heads fall, and the rest is scaled so that the sum over heads keeps its weight.

    Input [b, ...] with the heads along ``axis``, before the output projection: -2 for [b, t, heads, d], Keras's order, 1 for
    [b, heads, t, d]. One coin for each example and head; survivors are times heads / (how many stayed). Where all would fall,
    all stay. ``rate`` in [0, 1). Keras's MultiHeadAttention does not show its heads; its ``dropout`` drops probabilities.

    Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead". Raises :class:`thinned.InputError`, a ValueError.
    """

    below_one = True

    def __init__(self, rate: float, axis: int = -2, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
            raise arguments.invalid("axis", "Expected an integer other than 0, which holds the examples.", axis)
        self.axis = axis
        self.start(rate, seed)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return x
        shape, dtype = self._coins(tuple(ops.shape(x))), engine.wide(x)
        stays = engine.kept(shape, _POINT, self.now(), self.seed_generator, None, dtype)
        stays = ops.cast(ops.logical_or(stays, ops.logical_not(ops.any(stays, self.axis, keepdims=True))), dtype)
        gain = stays * (shape[self.axis] / ops.sum(stays, self.axis, keepdims=True))
        return ops.cast(ops.where(stays > 0, ops.cast(x, dtype), 0.0) * gain, x.dtype)

    def _coins(self, shape: Any) -> Any:
        if not -len(shape) < self.axis < len(shape) or self.axis % len(shape) == 0:
            raise InputError(f"DropHead needs heads along axis {self.axis}, but got an input of {len(shape)} axes")
        return tuple(n if i in (0, self.axis % len(shape)) else 1 for i, n in enumerate(shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        self._coins(tuple(input_shape))
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "axis": self.axis, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class DropHeadAttention(keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention whose heads fall by :class:`DropHead`, between the values and the output projection.

    ``head_rate`` in [0, 1), settable at any time; everything else, weights and files among it, is Keras's layer:
    ``DropHeadAttention(8, 64, head_rate=0.1, dropout=0.1)``. ``seed`` is that of both kinds of noise. Zhou et al. 2020.
    Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self, num_heads: int, key_dim: int, *args: Any, head_rate: float = 0.1, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_heads, key_dim, *args, seed=seed, **kwargs)
        rate = arguments.rate_of(head_rate, "head_rate", below_one=True)
        self.heads = DropHead(rate, seed=arguments.seed_of(seed), dtype=self.dtype_policy, name="heads")

    @property
    def head_rate(self) -> float:
        """The probability that a head falls."""
        return self.heads.rate

    @head_rate.setter
    def head_rate(self, rate: float) -> None:
        self.heads.rate = rate

    def _compute_attention(
        self, query: Any, key: Any, value: Any, attention_mask: Any = None, training: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        heads, scores = super()._compute_attention(query, key, value, attention_mask, training, *args, **kwargs)
        return self.heads(heads, training=bool(training)), scores

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "head_rate": self.head_rate}


@keras.saving.register_keras_serializable(PACKAGE)
class DropKeyAttention(keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention some of whose keys are hidden from each query, before the softmax, so that rows still sum to 1.

    ``key_rate`` in [0, 1), settable at any time: one coin for each example, head, query and key. Of the keys that masks allow
    a query, all stay where all would fall. Everything else, weights and files among it, is Keras's layer:
    ``DropKeyAttention(8, 64, key_rate=0.1)``; its ``dropout`` drops probabilities after the softmax instead, and both may be
    set. ``seed`` is that of both kinds of noise. Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5.
    Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self, num_heads: int, key_dim: int, *args: Any, key_rate: float = 0.1, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_heads, key_dim, *args, seed=seed, **kwargs)
        self.keys = DropKey(key_rate, arguments.seed_of(seed), dtype=self.dtype_policy, name="keys")

    @property
    def key_rate(self) -> float:
        """The probability that a key is hidden."""
        return self.keys.rate

    @key_rate.setter
    def key_rate(self, rate: float) -> None:
        self.keys.rate = rate

    def _compute_attention(
        self, query: Any, key: Any, value: Any, attention_mask: Any = None, training: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if training:
            attention_mask = self.keys(ops.shape(query), ops.shape(key), attention_mask)
        return super()._compute_attention(query, key, value, attention_mask, training, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "key_rate": self.key_rate}
