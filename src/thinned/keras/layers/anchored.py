"""Layers around a layer whose weights are not dropped to 0, but to something else: Mixout,
Shakeout.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from ...algebra.drop import Drop as Point
from ...algebra.law import Bernoulli
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, Noisy, floating
from .weights import reweighted

_POINT = dropout(0.5)
_MIXED = {
    "weight": Point(Bernoulli(0.5), per="*", of="*"),
    "unit": Point(Bernoulli(0.5), per="i", of="* i o"),
}


@keras.saving.register_keras_serializable(PACKAGE)
class Mixout(Noisy, keras.layers.Wrapper):
    """Each weight is its pretrained value with probability ``rate``, and the mean is kept: for
    fine-tuning.

    ``layer``: any layer with weights; all of two axes or more are mixed. With w a weight and u its
    pretrained value, u + m (w - u) / (1 - rate) while training, one mask a call; w in evaluation. u
    is what the weight holds when this layer is built, so wrap a layer that has its pretrained
    weights, or call :meth:`anchor` once it has them. The u are weights that do not train, after the
    layer's own, and go into files. ``per="unit"``: one coin for each input (the axis before the
    last), as the authors' code ties them. ``rate`` in [0, 1], 0.7 to 0.9 in the paper; at 1 the
    weights are u.

    Lee, Cho, Kang 2020, equation 3. Raises :class:`thinned.InputError`, a ValueError.
    """

    kind = "weights"

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.7,
        per: Literal["weight", "unit"] = "weight",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.per = arguments.one_of(per, "per", ("weight", "unit"))
        self.start(rate, seed)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        mixed = [v for v in self.layer.trainable_variables if len(v.shape) > 1]
        if not mixed:
            rule = "Expected a layer with trainable weights of two axes or more."
            raise arguments.invalid("layer", rule, f"{type(self.layer).__name__}()")
        self.pretrained = [self._kept(v) for v in mixed]

    def _kept(self, variable: Any) -> Any:
        return self.add_weight(
            name=f"pretrained_{variable.name}",
            shape=variable.shape,
            dtype=variable.dtype,
            initializer=lambda shape, dtype=None: ops.copy(ops.cast(variable.value, dtype)),
            trainable=False,
        )

    def anchor(self) -> None:
        """From now on the weights as they are now are the pretrained ones."""
        mixed = (v for v in self.layer.trainable_variables if len(v.shape) > 1)
        for variable, kept in zip(mixed, self.pretrained, strict=True):
            kept.assign(variable.value)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        if not training:
            return self.layer(inputs, **kwargs)
        kept = iter(self.pretrained)
        values = [
            self._mixed(v, next(kept)) if len(v.shape) > 1 else v.value
            for v in self.layer.trainable_variables
        ]
        return reweighted(self.layer, values, inputs, kwargs)

    def _mixed(self, variable: Any, kept: Any) -> Any:
        u = ops.convert_to_tensor(kept.value)
        moved = ops.convert_to_tensor(variable.value) - u
        return u + engine.sample(moved, _MIXED[self.per], self.now(), self.seed_generator)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "per": self.per, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class Shakeout(Noisy, keras.layers.Wrapper):
    """A Dense layer under shakeout: a dropped input turns its weights to -c sign(w) instead of 0.

    Weights (m / q) w + c (m / q - 1) sign(w) while training, q = 1 - ``rate``, one coin for each
    example and input; the mean is the plain layer, which evaluation is. ``c`` >= 0: 0 is dropout of
    the input, more pulls weights to 0 as L1 does. ``rate`` in [0, 1]. Input [b, ..., in].

    Kang, Li, Tao 2016, equation 3. Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        layer: keras.layers.Dense,
        rate: float = 0.5,
        c: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, keras.layers.Dense):
            raise arguments.invalid("layer", "Expected a keras.layers.Dense.", type(layer).__name__)
        super().__init__(layer, **kwargs)
        if not arguments.real_of(c, "c") >= 0:
            raise arguments.invalid("c", "Expected a float of at least 0; 0 is dropout.", c)
        self.c = float(c)
        self.start(rate, seed)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return self.layer(inputs)
        x, dense = floating(inputs, self), self.layer
        kernel = ops.cast(ops.convert_to_tensor(dense.kernel), x.dtype)
        pulls = self.c * ops.sign(kernel)
        y = ops.matmul(
            engine.sample(x, _POINT, self.now(), self.seed_generator), kernel + pulls
        ) - ops.matmul(x, pulls)
        y = (
            ops.add(y, ops.cast(ops.convert_to_tensor(dense.bias), y.dtype))
            if dense.use_bias
            else y
        )
        return y if dense.activation is None else dense.activation(y)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "c": self.c, "seed": self.seed}
