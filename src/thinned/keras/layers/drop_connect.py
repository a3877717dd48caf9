"""Layers that drop the weights of a layer: DropConnect and weight-drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from ... import presets
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, RatedLayer, floating


def call_with_weights(
    layer: keras.Layer, values: list[Any], inputs: Any, keywords: Mapping[str, Any]
) -> Any:
    """The output of ``layer`` with ``values`` as its trainable weights; its other state is updated.

    ``values`` are in the order of ``layer.trainable_variables``; ``keywords`` that are None are
    left out of the call.
    """
    others = layer.non_trainable_variables
    state = [*zip(layer.trainable_variables, values, strict=True), *((v, v.value) for v in others)]
    with keras.StatelessScope(state_mapping=state) as scope:
        outputs = layer(
            inputs, **{name: value for name, value in keywords.items() if value is not None}
        )
    for variable in others:
        variable.assign(scope.get_current_value(variable))
    return outputs


def _is_recurrent(layer: keras.Layer) -> bool:
    return hasattr(layer, "recurrent_dropout") or isinstance(layer, keras.layers.RNN)


class WeightMaskLayer(RatedLayer, keras.layers.Wrapper):
    """Base of the layers that drop the weights named by ``names``, one mask a call. Abstract."""

    abstract = True
    kind = "weights"

    def __init__(
        self,
        layer: keras.Layer,
        rate: float,
        scale: Literal["inverted", "classic"],
        names: tuple[str, ...],
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.scale = arguments.one_of(scale, "scale", ("inverted", "classic"))
        self.names = names
        self.base_spec = presets.drop_connect(arguments.rate_of(rate), scale, "batch")
        self.start(rate, seed)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        self.check_names()

    def check_names(self) -> None:
        if not any(self._is_named(v) for v in self.layer.trainable_variables):
            known = ", ".join(v.name for v in self.layer.trainable_variables) or "none"
            rule = f"Expected ends of names of the weights of the layer ({known})."
            raise arguments.invalid("names", rule, self.names)

    def _is_named(self, variable: Any) -> bool:
        return any(variable.name == n or variable.path.endswith(f"/{n}") for n in self.names)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        values = [
            self.noisy_weight(v, training) if self._is_named(v) else v.value
            for v in self.layer.trainable_variables
        ]
        return call_with_weights(self.layer, values, inputs, kwargs)

    def noisy_weight(self, variable: Any, training: bool) -> Any:
        w = ops.convert_to_tensor(variable.value)
        return self.draw(w) if training else engine.mean(w, self.base_spec, self.now())

    def draw(self, w: Any) -> Any:
        return engine.sample(w, self.base_spec, self.now(), self.seed_generator)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(PACKAGE)
class DropConnect(WeightMaskLayer):
    """DropConnect: zeroes each weight of a layer with probability ``rate`` while training.

    Input and output are those of the layer. With ``per="example"`` the input is [b, ..., in], the
    axes between share the mask of an example, and memory is batch x in x out. The activity
    regularizer of the layer has no effect.

    Args:
        layer: Any layer with weights.
        rate: The probability of dropping a weight, in [0, 1]; may be set at any time.
        per: "example" gives each example masks of its own over kernel and bias, as in the paper; it
            needs a Dense layer, and is the default there. "batch" draws one mask for each call.
        scale: "classic", the paper's, takes the mean of every weight in evaluation; "inverted"
            divides by 1 - rate while training.
        names: The ends of the names of the weights that a mask of the batch drops; None drops the
            kernels, of recurrent layers the recurrent kernels.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or no weight has one of ``names``. It is a
            ValueError.

    Example:
        >>> DropConnect(keras.layers.Dense(4), 0.5).per
        'example'
        >>> DropConnect(keras.layers.GRU(4), 0.2).names
        ('recurrent_kernel',)

    Reference:
        Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of neural networks using
        DropConnect"; :func:`thinned.presets.drop_connect`.
    """

    config_names = ("rate", "per", "scale", "seed")

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
        default = ("recurrent_kernel",) if _is_recurrent(layer) else ("kernel",)
        super().__init__(layer, rate, scale, tuple(names) if names else default, seed, **kwargs)
        each = isinstance(layer, keras.layers.Dense) and names is None
        self.per = arguments.one_of(
            per or ("example" if each else "batch"), "per", ("example", "batch")
        )
        if self.per == "example" and not each:
            rule = "Expected 'batch': masks of each example are for a Dense layer, without names."
            raise arguments.invalid("per", rule, repr(per))

    def check_names(self) -> None:
        if self.per == "batch":
            super().check_names()

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        if self.per == "example":
            return self._call_per_example(floating(inputs, self), training)
        return super().call(inputs, training=training, **kwargs)

    def _call_per_example(self, x: Any, training: bool) -> Any:
        dense = self.layer
        kernel = ops.cast(ops.convert_to_tensor(dense.kernel), x.dtype)
        bias = ops.cast(ops.convert_to_tensor(dense.bias), x.dtype) if dense.use_bias else None
        if not training:
            y = ops.matmul(x, engine.mean(kernel, self.base_spec, self.now()))
            bias = None if bias is None else engine.mean(bias, self.base_spec, self.now())
        else:
            b = ops.shape(x)[0]
            weights = self.draw(ops.broadcast_to(kernel, (b, *kernel.shape)))
            y = ops.einsum("b...i,bio->b...o", x, weights)
            if bias is not None:
                bias = self.draw(ops.broadcast_to(bias, (b, *bias.shape)))
                bias = ops.reshape(bias, (b, *(1,) * (len(y.shape) - 2), bias.shape[-1]))
        y = y if bias is None else y + bias
        return y if dense.activation is None else dense.activation(y)

    def get_config(self) -> dict[str, Any]:
        names = None if self.per == "example" else list(self.names)
        return {**super().get_config(), "names": names}


@keras.saving.register_keras_serializable(PACKAGE)
class WeightDrop(WeightMaskLayer):
    """Weight-drop (AWD-LSTM): DropConnect on the recurrent weights, one mask for the whole call.

    The kept weights are divided by 1 - rate while training, and evaluation is the layer itself. It
    is ``DropConnect(layer, rate, scale="inverted")``.

    Args:
        layer: A recurrent layer: LSTM, GRU, SimpleRNN, or an RNN of such cells.
        rate: The probability of dropping a weight, in [0, 1], 0.5 in the paper; may be set at any
            time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or ``layer`` is not recurrent. It is a
            ValueError.

    Example:
        >>> WeightDrop(keras.layers.LSTM(8), 0.5).rate
        0.5

    Reference:
        Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language models".
    """

    def __init__(
        self, layer: keras.Layer, rate: float = 0.5, seed: int | None = None, **kwargs: Any
    ) -> None:
        if not _is_recurrent(layer):
            rule = "Expected a recurrent layer; for other layers use DropConnect."
            raise arguments.invalid("layer", rule, type(layer).__name__)
        super().__init__(layer, rate, "inverted", ("recurrent_kernel",), seed, **kwargs)
