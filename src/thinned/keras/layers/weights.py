"""The layer around a layer whose weights fall: DropConnect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from ... import presets
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, Noisy, floating


def reweighted(layer: keras.Layer, values: list[Any], inputs: Any, more: Mapping[str, Any]) -> Any:
    """What ``layer`` makes with ``values`` in the place of its trainable weights; its other state
    moves on.
    """
    others = layer.non_trainable_variables
    state = [*zip(layer.trainable_variables, values, strict=True), *((v, v.value) for v in others)]
    with keras.StatelessScope(state_mapping=state) as scope:
        outputs = layer(
            inputs, **{name: value for name, value in more.items() if value is not None}
        )
    for variable in others:
        variable.assign(scope.get_current_value(variable))
    return outputs


@keras.saving.register_keras_serializable(PACKAGE)
class DropConnect(Noisy, keras.layers.Wrapper):
    """A layer whose weights fall: :func:`thinned.presets.dropconnect`, Wan et al. 2013.

    ``layer``: any layer with weights. ``per``: ``"example"`` gives each example masks of its own
    over kernel and bias, as in the paper, on a Dense layer alone (and by default there);
    ``"batch"`` draws one mask a call for the weights whose names end as ``names`` say, by default
    the kernels, of recurrent layers the recurrent ones (weight-drop). ``scale``: ``"classic"``
    takes every weight's mean in evaluation, ``"inverted"`` divides by 1 - rate while training.
    ``rate`` in [0, 1].

    Input and output are the layer's; for ``"example"`` [b, ..., in], and the axes between share an
    example's mask (memory: b x in x out). The layer's activity regularizer is not seen. Raises
    :class:`thinned.InputError`, a ValueError.
    """

    kind = "weights"

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.5,
        per: Literal["example", "batch"] | None = None,
        scale: Literal["inverted", "classic"] = "classic",
        names: Sequence[str] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        dense = isinstance(layer, keras.layers.Dense)
        self.per = arguments.one_of(
            per or ("example" if dense and names is None else "batch"), "per", ("example", "batch")
        )
        if self.per == "example" and not (dense and names is None):
            rule = "Expected 'batch': masks of each example are for a Dense layer, without names."
            raise arguments.invalid("per", rule, repr(per))
        self.scale = arguments.one_of(scale, "scale", ("inverted", "classic"))
        recurrent = hasattr(layer, "recurrent_dropout") or isinstance(layer, keras.layers.RNN)
        self.names = tuple(names) if names else ("recurrent_kernel",) if recurrent else ("kernel",)
        self.base_spec = presets.drop_connect(arguments.rate_of(rate), scale, "batch")
        self.start(rate, seed)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if self.per == "batch" and not any(self._falls(v) for v in self.layer.trainable_variables):
            known = ", ".join(v.name for v in self.layer.trainable_variables) or "none"
            raise arguments.invalid(
                "names", f"Expected ends of names of the layer's weights ({known}).", self.names
            )

    def _falls(self, variable: Any) -> bool:
        return any(variable.name == n or variable.path.endswith(f"/{n}") for n in self.names)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        if self.per == "example":
            return self._each(floating(inputs, self), training)
        values = [
            self._thinned(v, training) if self._falls(v) else v.value
            for v in self.layer.trainable_variables
        ]
        return reweighted(self.layer, values, inputs, kwargs)

    def _thinned(self, variable: Any, training: bool) -> Any:
        w = ops.convert_to_tensor(variable.value)
        if not training:
            return engine.mean(w, self.base_spec, self.now())
        return engine.sample(w, self.base_spec, self.now(), self.seed_generator)

    def _each(self, x: Any, training: bool) -> Any:
        dense = self.layer
        kernel = ops.cast(ops.convert_to_tensor(dense.kernel), x.dtype)
        bias = ops.cast(ops.convert_to_tensor(dense.bias), x.dtype) if dense.use_bias else None
        if not training:
            y = ops.matmul(x, engine.mean(kernel, self.base_spec, self.now()))
            bias = None if bias is None else engine.mean(bias, self.base_spec, self.now())
        else:
            b = ops.shape(x)[0]
            weights = self._drawn(ops.broadcast_to(kernel, (b, *kernel.shape)))
            y = ops.einsum("b...i,bio->b...o", x, weights)
            if bias is not None:
                bias = self._drawn(ops.broadcast_to(bias, (b, *bias.shape)))
                bias = ops.reshape(bias, (b, *(1,) * (len(y.shape) - 2), bias.shape[-1]))
        y = y if bias is None else y + bias
        return y if dense.activation is None else dense.activation(y)

    def _drawn(self, w: Any) -> Any:
        return engine.sample(w, self.base_spec, self.now(), self.seed_generator)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        own = {"rate": self.rate, "per": self.per, "scale": self.scale, "seed": self.seed}
        names = None if self.per == "example" else list(self.names)
        return {**super().get_config(), **own, "names": names}
