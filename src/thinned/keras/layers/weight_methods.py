"""Layers around a layer that change its weights by a method of their own: Mixout, Shakeout and
targeted dropout.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from ...algebra.drop import Drop
from ...algebra.law import Bernoulli
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, RatedLayer, floating
from .drop_connect import call_with_weights

_DROPOUT = dropout(0.5)
_MIXOUT = {
    "weight": Drop(Bernoulli(0.5), per="*", of="*"),
    "unit": Drop(Bernoulli(0.5), per="i", of="* i o"),
}
_TARGETED = {
    "weight": Drop(Bernoulli(0.5), per="*", of="*"),
    "unit": Drop(Bernoulli(0.5), per="o", of="* o"),
}


@keras.saving.register_keras_serializable(PACKAGE)
class Mixout(RatedLayer, keras.layers.Wrapper):
    """Mixout: replaces each weight by its pretrained value with probability ``rate``, for
    fine-tuning.

    With w a weight and u its pretrained value, u + m (w - u) / (1 - rate) while training, with one
    mask for each call; w in evaluation. All weights of two axes or more are mixed. u is what the
    weight holds when this layer is built, so wrap a layer that has its pretrained weights, or call
    :meth:`anchor` once it has them. The pretrained values are weights that do not train, come after
    those of the layer, and are saved in files.

    Args:
        layer: Any layer with weights.
        rate: The probability of replacing, in [0, 1], 0.7 to 0.9 in the paper; at 1 the weights are
            the pretrained ones. It may be set at any time.
        per: "weight" draws for each weight; "unit" for each input (the axis before the last), as
            the authors' code does.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the layer has no weights of two axes. It is
            a ValueError.

    Example:
        >>> Mixout(keras.layers.Dense(2), 0.9, per="unit").per
        'unit'

    Reference:
        Lee, Cho, Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained
        language models", equation 3.
    """

    kind = "weights"
    config_names = ("rate", "per", "seed")

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
        mixed = self._mixed_variables()
        if not mixed:
            rule = "Expected a layer with trainable weights of two axes or more."
            raise arguments.invalid("layer", rule, f"{type(self.layer).__name__}()")
        self.pretrained = [self._copy(v) for v in mixed]

    def _mixed_variables(self) -> list[Any]:
        return [v for v in self.layer.trainable_variables if len(v.shape) > 1]

    def _copy(self, variable: Any) -> Any:
        return self.add_weight(
            name=f"pretrained_{variable.name}",
            shape=variable.shape,
            dtype=variable.dtype,
            initializer=lambda shape, dtype=None: ops.copy(ops.cast(variable.value, dtype)),
            trainable=False,
        )

    def anchor(self) -> None:
        """Take the present weights as the pretrained ones."""
        for variable, pretrained in zip(self._mixed_variables(), self.pretrained, strict=True):
            pretrained.assign(variable.value)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        if not training:
            return self.layer(inputs, **kwargs)
        pretrained = iter(self.pretrained)
        values = [
            self._mix(v, next(pretrained)) if len(v.shape) > 1 else v.value
            for v in self.layer.trainable_variables
        ]
        return call_with_weights(self.layer, values, inputs, kwargs)

    def _mix(self, variable: Any, pretrained: Any) -> Any:
        u = ops.convert_to_tensor(pretrained.value)
        difference = ops.convert_to_tensor(variable.value) - u
        return u + engine.sample(difference, _MIXOUT[self.per], self.now(), self.seed_generator)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(PACKAGE)
class Shakeout(RatedLayer, keras.layers.Wrapper):
    """Shakeout: the weights of a dropped input of a Dense layer become -c sign(w) instead of 0.

    While training the weights are (m / q) w + c (m / q - 1) sign(w), q = 1 - ``rate``, with one
    draw m for each example and input. Their mean is w, and evaluation is the layer itself. Input
    [b, ..., in].

    Args:
        layer: A Dense layer.
        rate: The probability of dropping an input, in [0, 1]; may be set at any time.
        c: The strength of the pull towards 0, at least 0: 0 is dropout of the input, more acts as
            L1 does.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or ``layer`` is no Dense. It is a ValueError.

    Example:
        >>> Shakeout(keras.layers.Dense(4), 0.5, c=0.1).c
        0.1

    Reference:
        Kang, Li, Tao 2016, "Shakeout: a new regularized deep neural network training scheme",
        equation 3.
    """

    config_names = ("rate", "c", "seed")

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
        # (m / q) w + c (m / q - 1) sign(w) = (m / q) (w + c sign(w)) - c sign(w): dropout of the
        # input in one product, and the input as it is in another.
        x, dense = floating(inputs, self), self.layer
        kernel = ops.cast(ops.convert_to_tensor(dense.kernel), x.dtype)
        pulls = self.c * ops.sign(kernel)
        dropped = engine.sample(x, _DROPOUT, self.now(), self.seed_generator)
        y = ops.matmul(dropped, kernel + pulls) - ops.matmul(x, pulls)
        if dense.use_bias:
            y = ops.add(y, ops.cast(ops.convert_to_tensor(dense.bias), y.dtype))
        return y if dense.activation is None else dense.activation(y)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


class TargetedLayer(RatedLayer, keras.layers.Wrapper):
    """Base of targeted dropout of weights and of units. Abstract."""

    abstract = True
    kind = "weights"
    config_names: tuple[str, ...] = ("rate", "fraction", "seed")

    def __init__(
        self,
        layer: keras.Layer,
        rate: float,
        fraction: float,
        per: Literal["weight", "unit"],
        seed: int | None,
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
            self._thinned_kernel(v, training) if v.name == "kernel" else v.value
            for v in self.layer.trainable_variables
        ]
        return call_with_weights(self.layer, values, inputs, {})

    def _thinned_kernel(self, kernel: Any, training: bool) -> Any:
        w = ops.convert_to_tensor(kernel.value)
        drop = self._candidates(ops.stop_gradient(w))
        if training:
            keep = engine.bernoulli_mask(
                tuple(w.shape), _TARGETED[self.per], self.now(), self.seed_generator
            )
            drop = ops.logical_and(drop, ops.logical_not(keep))
        else:
            drop = ops.logical_and(drop, self.now() > 0)
        return ops.where(drop, ops.zeros_like(w), w)

    def _candidates(self, w: Any) -> Any:
        rows = ops.abs(ops.reshape(ops.cast(w, engine.noise_dtype(w)), (-1, w.shape[-1])))
        # rows [in, out]; norms [out] have the order of their squares
        size = rows if self.per == "weight" else ops.sum(ops.square(rows), 0)
        n = size.shape[0]
        count = int(self.fraction * n + 1e-6)  # 0.29 * 100 is 28.999999999999996
        if count == n:
            smallest = ops.ones_like(size, dtype="bool")
        else:
            smallest = size < ops.sort(size, axis=0)[count]
        return ops.reshape(smallest, w.shape) if self.per == "weight" else smallest

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(PACKAGE)
class TargetedDropout(TargetedLayer):
    """Targeted dropout: drops only the smallest weights, so that the layer can be pruned later.

    Candidates are the ``fraction`` of the weights of each output that are smallest in magnitude:
    floor(fraction n) of n, less where several are equal. While training each candidate is dropped
    with probability ``rate``, with one mask for each call, and nothing is scaled. Evaluation drops
    all candidates, which is the pruned network; at rate 0 it is the layer itself.

    Args:
        layer: Dense, Conv1D, Conv2D or Conv3D, with a kernel [..., out].
        rate: The probability of dropping a candidate, in [0, 1]; 0.5, up to 0.75, in the paper. It
            may be set at any time.
        fraction: The fraction of candidates, in [0, 1]; 0.5, up to 0.9, in the paper.
        per: "weight", or "unit" as in :class:`TargetedUnitDropout`.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or ``layer`` is of another class. It is a
            ValueError.

    Example:
        >>> layer = TargetedDropout(keras.layers.Dense(64), 0.5, fraction=0.75)
        >>> layer.rate, layer.fraction
        (0.5, 0.75)

    Reference:
        Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019, "Learning sparse networks using
        targeted dropout".
    """

    config_names = ("rate", "fraction", "per", "seed")

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.5,
        fraction: float = 0.5,
        per: Literal["weight", "unit"] = "weight",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, rate, fraction, per, seed, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class TargetedUnitDropout(TargetedLayer):
    """Targeted dropout of whole units: drops the outputs with the smallest weights.

    Candidates are the ``fraction`` of the outputs with the weights of smallest Euclidean norm;
    the rest is as in :class:`TargetedDropout`.

    Args:
        layer: Dense, Conv1D, Conv2D or Conv3D, with a kernel [..., out].
        rate: The probability of dropping a candidate, in [0, 1]; may be set at any time.
        fraction: The fraction of candidates, in [0, 1].
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or ``layer`` is of another class. It is a
            ValueError.

    Example:
        >>> TargetedUnitDropout(keras.layers.Conv2D(32, 3), 0.5, 0.5).fraction
        0.5

    Reference:
        Gomez et al. 2019, "Learning sparse networks using targeted dropout".
    """

    def __init__(
        self,
        layer: keras.Layer,
        rate: float = 0.5,
        fraction: float = 0.5,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, rate, fraction, "unit", seed, **kwargs)
