"""Layers that blend, shake or skip the branches of residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, RatedLayer, ThinnedLayer, floating, rate_property

_CLASSIC = dropout(0.5, "classic")


def _shape_per_example(x: Any) -> Any:
    """The shape of one number for each example: (b, 1, ...)."""
    shape = tuple(ops.shape(x))
    return (shape[0], *(1,) * (len(shape) - 1))


def _scaled_with_gradient(x: Any, forward: Any, backward: Any) -> Any:
    """``forward`` * x, with a gradient that is multiplied by ``backward`` instead.

    The result has the type of the noise.
    """
    # The value of stop_gradient(x * forward - linear) + linear is x * forward; only the linear
    # part has a gradient.
    x = ops.cast(x, forward.dtype)
    linear = x * backward
    return linear + ops.stop_gradient(x * forward - linear)


class _TwoInputs:
    """Mixin of layers with two inputs of one shape."""

    def checked_inputs(self: Any, inputs: Any) -> tuple[Any, Any]:
        first, second = (floating(x, self) for x in _pair(inputs, self))
        self.compute_output_shape([tuple(first.shape), tuple(second.shape)])
        return first, second

    def compute_output_shape(self, input_shape: Any) -> Any:
        first, second = _pair(input_shape, self)
        if not _compatible(first, second):
            raise InputError(
                f"{type(self).__name__} needs two inputs of one shape, but got {tuple(first)} and "
                f"{tuple(second)}"
            )
        return tuple(n if m is None else m for m, n in zip(first, second, strict=True))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        masks = [m for m in (mask if isinstance(mask, (list, tuple)) else [mask]) if m is not None]
        return ops.logical_and(*masks) if len(masks) == 2 else (masks or [None])[0]


def _pair(inputs: Any, layer: Any) -> Sequence[Any]:
    if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
        raise InputError(
            f"{type(layer).__name__} needs a list of two inputs, such as layer([first, second])"
        )
    return inputs


def _compatible(first: Any, second: Any) -> bool:
    """Whether two shapes are equal where both are known."""
    return len(first) == len(second) and all(
        m == n or None in (m, n) for m, n in zip(first, second, strict=True)
    )


@keras.saving.register_keras_serializable(PACKAGE)
class ShakeShake(_TwoInputs, ThinnedLayer, keras.layers.Layer):
    """Shake-Shake: blends two residual branches by a random weight, and their gradients by another.

    ``x + ShakeShake()([f(x), g(x)])``: a f(x) + (1 - a) g(x) while training, a ~ U(0, 1) for each
    example; gradients are multiplied by b and 1 - b instead. (f(x) + g(x)) / 2 in evaluation.
    Inputs: a list of two of one shape [b, ...].

    Args:
        backward: The weight b of the gradients: "shake" draws b ~ U(0, 1), "even" takes 1/2, "keep"
            takes a.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the inputs are not two of one shape. It is a
            ValueError.

    Example:
        >>> import numpy as np
        >>> y = ShakeShake()([np.ones((2, 3)), np.zeros((2, 3))])
        >>> keras.ops.convert_to_numpy(y)[0].tolist()
        [0.5, 0.5, 0.5]

    Reference:
        Gastaldi 2017, "Shake-shake regularization".
    """

    config_names = ("backward", "seed")

    def __init__(
        self,
        backward: Literal["shake", "even", "keep"] = "shake",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backward = arguments.one_of(backward, "backward", ("shake", "even", "keep"))
        self.start_seeds(seed)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        first, second = self.checked_inputs(inputs)
        if not training:
            return 0.5 * (first + second)
        a = self._weight(first)
        if self.backward == "shake":
            b = self._weight(first)
        else:
            b = a if self.backward == "keep" else ops.full_like(a, 0.5)
        blended = _scaled_with_gradient(first, a, b) + _scaled_with_gradient(
            second, 1.0 - a, 1.0 - b
        )
        return ops.cast(blended, first.dtype)

    def _weight(self, x: Any) -> Any:
        """A number in (0, 1) for each example."""
        return keras.random.uniform(
            _shape_per_example(x), dtype=engine.noise_dtype(x), seed=self.seed_generator
        )


@keras.saving.register_keras_serializable(PACKAGE)
class ShakeDrop(RatedLayer, keras.layers.Layer):
    """ShakeDrop: with probability ``rate`` it shakes a residual branch instead of dropping it.

    ``x + ShakeDrop(0.5)(branch)``, with the branch F [b, ...]. While training it is F with
    probability 1 - rate, by one draw for the whole batch; otherwise a F, a ~ U(``alpha``) for each
    example, and gradients are multiplied by b ~ U(``beta``) instead. In evaluation it is the mean,
    (1 - rate + rate E[a]) F. With ``alpha`` and ``beta`` (0, 0) it is stochastic depth by batch.

    Args:
        rate: The probability of shaking, in [0, 1]; may be set at any time. In the paper it grows
            linearly with depth, to 0.5 in the last block.
        alpha: The range (low, high) of the weight of the branch.
        beta: The range (low, high) of the weight of its gradient.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> import numpy as np
        >>> y = ShakeDrop(0.5, alpha=(0.0, 1.0))(np.ones((1, 2)))
        >>> keras.ops.convert_to_numpy(y).tolist()
        [[0.75, 0.75]]

    Reference:
        Yamada, Iwamura, Akiba, Kise 2019, "ShakeDrop regularization for deep residual learning",
        equation 4.
    """

    kind = "branch"

    def __init__(
        self,
        rate: float = 0.5,
        alpha: Sequence[float] = (-1.0, 1.0),
        beta: Sequence[float] = (0.0, 1.0),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha, self.beta = arguments.range_of(alpha, "alpha"), arguments.range_of(beta, "beta")
        self.start(rate, seed)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        dtype = engine.noise_dtype(x)
        rate = ops.cast(self.now(), dtype)
        if not training:
            gain = 1.0 - rate + rate * 0.5 * sum(self.alpha)
            return ops.cast(ops.cast(x, dtype) * gain, x.dtype)
        shape = _shape_per_example(x)
        one = (1,) * len(shape)
        shaken = keras.random.uniform(one, dtype=dtype, seed=self.seed_generator) < rate
        a, b = (
            ops.where(
                shaken,
                keras.random.uniform(shape, low, high, dtype=dtype, seed=self.seed_generator),
                1.0,
            )
            for low, high in (self.alpha, self.beta)
        )
        return ops.cast(_scaled_with_gradient(x, a, b), x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        # lists, as they come back from a file
        return {**super().get_config(), "alpha": list(self.alpha), "beta": list(self.beta)}


@keras.saving.register_keras_serializable(PACKAGE)
class Swapout(_TwoInputs, RatedLayer, keras.layers.Layer):
    """Swapout: drops units of the skip connection and of the residual branch independently.

    ``Swapout(0.5)([x, branch])`` replaces ``x + branch``. While training it is m1 x + m2 F, with
    P(m1 = 0) = ``skip_rate`` and P(m2 = 0) = ``rate``, and nothing is scaled; in evaluation the
    mean, (1 - skip_rate) x + (1 - rate) F. The paper prefers :func:`thinned.keras.predict` of 30
    samples. ``skip_rate=0`` is classic dropout of the branch. Inputs: a list of two of one shape
    [b, ...].

    Args:
        rate: The probability of dropping a unit of the branch, in [0, 1]; may be set at any time.
        skip_rate: The probability of dropping a unit of the skip connection, in [0, 1]; None is
            always ``rate``. It may be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the inputs are not two of one shape. It is a
            ValueError.

    Example:
        >>> import numpy as np
        >>> y = Swapout(0.5, skip_rate=0.0)([np.ones((1, 2)), np.ones((1, 2))])
        >>> keras.ops.convert_to_numpy(y).tolist()
        [[1.5, 1.5]]

    Reference:
        Singh, Hoiem, Forsyth 2016, "Swapout: learning an ensemble of deep architectures",
        equation 4.
    """

    kind, other_rates = "branch", ("skip_rate",)
    _own_skip_rate = rate_property("skip_rate")

    def __init__(
        self,
        rate: float = 0.5,
        skip_rate: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start(rate, seed)
        self._own_skip_rate = rate if skip_rate is None else skip_rate
        self.tied = skip_rate is None
        self.build_at_init()

    @property
    def skip_rate(self) -> float:
        """The probability of dropping a unit of the skip connection; ``rate`` until it is set."""
        return self.rate if self.tied else float(self._own_skip_rate)

    @skip_rate.setter
    def skip_rate(self, rate: float) -> None:
        self._own_skip_rate, self.tied = rate, False

    def call(self, inputs: Any, training: bool = False) -> Any:
        rates = (self.now() if self.tied else self.skip_rate_state.state.value, self.now())
        pairs = list(zip(self.checked_inputs(inputs), rates, strict=True))
        if not training:
            x, branch = (engine.mean(t, _CLASSIC, rate) for t, rate in pairs)
        else:
            x, branch = (engine.sample(t, _CLASSIC, rate, self.seed_generator) for t, rate in pairs)
        return x + branch

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "skip_rate": None if self.tied else self.skip_rate}


@keras.saving.register_keras_serializable(PACKAGE)
class LayerDrop(RatedLayer, keras.layers.Wrapper):
    """LayerDrop: skips a whole residual layer with probability ``rate`` while training.

    One draw decides for the whole batch, and nothing is scaled. A skipped layer is still computed,
    since a compiled step has no branches, but gets no gradient. Evaluation is the layer itself, and
    so the layer can be left out of a smaller network later.

    Args:
        layer: A residual layer with an output in the shape of its input, such as a block of a
            transformer; masks and further arguments of the call are passed to it.
        rate: The probability of skipping, in [0, 1]; may be set at any time. 0.1 to 0.2 for
            quality, up to 0.5 where layers will be pruned.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule, or the layer changes the shape. It is a
            ValueError.

    Example:
        >>> import numpy as np
        >>> layer = LayerDrop(keras.layers.Dense(2), rate=1.0)
        >>> keras.ops.convert_to_numpy(layer(np.ones((1, 2)), training=True)).tolist()
        [[1.0, 1.0]]

    Reference:
        Fan, Grave, Joulin 2020, "Reducing transformer depth on demand with structured dropout",
        section 3.2.
    """

    kind = "branch"

    def __init__(
        self, layer: keras.Layer, rate: float = 0.2, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(layer, **kwargs)
        self.start(rate, seed)

    def call(self, inputs: Any, training: bool = False, **kwargs: Any) -> Any:
        y = self.layer(inputs, **kwargs)
        if not training:
            return y
        x = floating(inputs, self)
        self._check_shapes(tuple(x.shape), tuple(y.shape))
        uniform = keras.random.uniform(
            (1,) * len(y.shape), dtype="float32", seed=self.seed_generator
        )
        return ops.where(uniform >= self.now(), y, ops.cast(x, y.dtype))

    def _check_shapes(self, inputs: Any, outputs: Any) -> None:
        if not _compatible(inputs, outputs):
            raise InputError(
                f"LayerDrop needs a layer that keeps the shape {inputs}, but {self.layer.name} "
                f"returns {outputs}"
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = self.layer.compute_output_shape(input_shape)
        self._check_shapes(tuple(input_shape), tuple(shape))
        return shape
