"""The layer around a layer whose smallest weights fall, so that it can be pruned."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from ...algebra.drop import Drop as Point
from ...algebra.law import Bernoulli
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, Noisy
from .weights import reweighted

_COINS = {
    "weight": Point(Bernoulli(0.5), per="*", of="*"),
    "unit": Point(Bernoulli(0.5), per="o", of="* o"),
}


@keras.saving.register_keras_serializable(PACKAGE)
class TargetedDropout(Noisy, keras.layers.Wrapper):
    """Only the smallest weights fall, so that the network learns to do without them:
    ``TargetedDropout(Dense(64), 0.5, 0.5)``.

    ``layer``: Dense, Conv1D, Conv2D or Conv3D, with a kernel [..., out]. Candidates are the
    ``fraction`` of each output's weights that are smallest in magnitude; with ``per="unit"`` the
    ``fraction`` of outputs whose weights have the smallest Euclidean norm; floor(fraction n) of n,
    but no part of several equal ones. While training each candidate falls with probability
    ``rate``, one mask a call, nothing is scaled; evaluation drops all candidates, which is the
    pruned network. ``rate`` 0 is the plain layer, in evaluation too. Both in [0, 1]; the paper uses
    0.5 and 0.5, up to 0.75 and 0.9.

    Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019. Raises :class:`thinned.InputError`,
    a ValueError.
    """

    kind = "weights"

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.5,
        fraction: float = 0.5,
        per: Literal["weight", "unit"] = "weight",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        known = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
        if not isinstance(layer, known):
            rule = f"Expected a layer of {', '.join(k.__name__ for k in known)}."
            raise arguments.invalid("layer", rule, type(layer).__name__)
        super().__init__(layer, **kwargs)
        self.fraction = arguments.rate_of(fraction, "fraction")
        self.per = arguments.one_of(per, "per", ("weight", "unit"))
        self.start(rate, seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        values = [
            self._left(v, training) if v.name == "kernel" else v.value
            for v in self.layer.trainable_variables
        ]
        return reweighted(self.layer, values, inputs, {})

    def _left(self, kernel: Any, training: bool) -> Any:
        w = ops.convert_to_tensor(kernel.value)
        fall = self._candidates(ops.stop_gradient(w))
        if training:
            stays = engine.kept(
                tuple(w.shape), _COINS[self.per], self.now(), self.seed_generator, None, "float32"
            )
            fall = ops.logical_and(fall, ops.logical_not(stays))
        else:
            fall = ops.logical_and(fall, self.now() > 0)
        return ops.where(fall, ops.zeros_like(w), w)

    def _candidates(self, w: Any) -> Any:
        rows = ops.abs(ops.reshape(ops.cast(w, engine.wide(w)), (-1, w.shape[-1])))  # [in, out]
        size = (
            rows if self.per == "weight" else ops.sum(ops.square(rows), 0)
        )  # [out]: norms have the order of their squares
        n = size.shape[0]
        count = int(self.fraction * n + 1e-6)  # 0.29 * 100 is 28.999999999999996
        least = (
            ops.ones_like(size, dtype="bool")
            if count == n
            else size < ops.sort(size, axis=0)[count]
        )
        return ops.reshape(least, w.shape) if self.per == "weight" else least

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        own = ("rate", "fraction", "per", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
