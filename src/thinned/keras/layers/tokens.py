"""Layers on ids and on sequences of patches."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, Noisy, seeded

_POINT = dropout(0.5)


@keras.saving.register_keras_serializable(PACKAGE)
class WordDropout(Noisy, keras.layers.Layer):
    """Each token becomes ``unknown_id`` with probability ``rate``; nothing is scaled. Before the
    embedding.

    Input and output: ids of whole numbers, [b, ...]. Every id may fall, also one that pads: give
    ``keep_id`` to spare one, such as the padding of ``Embedding(mask_zero=True)``. ``rate`` in [0,
    1]. Evaluation is the input.

    Iyyer et al. 2015, "Deep unordered composition ..."; Bowman et al. 2016. Raises
    :class:`thinned.InputError`, a ValueError.
    """

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
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        ids = ops.convert_to_tensor(inputs)
        if not keras.backend.is_int_dtype(keras.backend.standardize_dtype(ids.dtype)):
            raise InputError(
                f"WordDropout needs ids of whole numbers, but got {ids.dtype}; for vectors use TokenDropout"
            )
        if not training:
            return ids
        stays = engine.kept(
            tuple(ops.shape(ids)), _POINT, self.now(), self.seed_generator, None, "float32"
        )
        if self.keep_id is not None:
            stays = ops.logical_or(stays, ops.equal(ids, self.keep_id))
        return ops.where(stays, ids, ops.full_like(ids, self.unknown_id))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        own = {
            "rate": self.rate,
            "unknown_id": self.unknown_id,
            "keep_id": self.keep_id,
            "seed": self.seed,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(PACKAGE)
class PatchDropout(keras.layers.Layer):
    """A vision transformer sees fewer patches while training, and the sequence is shorter; Liu et
    al. 2023.

    Of the t - ``prefix`` tokens after the first ``prefix`` (the class token; 0 without one) int((1
    - rate)(t - prefix)) stay, every subset as likely, in their order, each example its own. Nothing
    is scaled. Input [b, t, d] with positions added and t known; output [b, kept, d] while training,
    the input in evaluation. ``rate`` in [0, 1) is fixed: it decides shapes. A rate that leaves no
    patch raises :class:`thinned.InputError`.
    """

    def __init__(
        self, rate: float = 0.5, prefix: int = 1, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rate = arguments.rate_of(rate, below_one=True)
        self.prefix = arguments.whole_of(prefix, "prefix", 0)
        seeded(self, seed)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = ops.convert_to_tensor(inputs)
        kept = self._count(x.shape)
        if not training or kept == x.shape[1]:
            return x
        patches = x.shape[1] - self.prefix
        drawn = keras.random.uniform(
            (ops.shape(x)[0], patches), dtype="float32", seed=self.seed_generator
        )
        chosen = ops.sort(ops.argsort(drawn, axis=1)[:, : kept - self.prefix], axis=1)
        places = ops.expand_dims(ops.cast(chosen, "int32") + self.prefix, -1)
        return ops.concatenate(
            [x[:, : self.prefix], ops.take_along_axis(x, places, axis=1)], axis=1
        )

    def _count(self, shape: Any) -> int:
        if shape[1] is None:
            raise InputError("PatchDropout needs a known number of tokens; give Input a shape")
        patches = shape[1] - self.prefix
        count = int((1.0 - self.rate) * patches + 1e-9)
        if count < 1:
            rule = f"Expected a rate and a prefix ({self.prefix}) that leave a patch of {shape[1]} tokens."
            raise arguments.invalid("rate", rule, self.rate)
        return self.prefix + count

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        kept = self._count(inputs.shape)
        length = (
            kept if training else inputs.shape[1] if self.rate == 0.0 or training is False else None
        )
        return keras.KerasTensor(
            (inputs.shape[0], length, inputs.shape[2]), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "prefix": self.prefix, "seed": self.seed}
