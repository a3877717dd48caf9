"""Layers that shake, swap or skip the branches of residual networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from ..._errors import InputError
from ...engines import keras as engine
from ...presets import dropout
from .. import arguments
from .base import PACKAGE, Noisy, floating, moving, seeded

_CLASSIC = dropout(0.5, "classic")


def _ones(x: Any) -> Any:
    """The shape of a number for each example."""
    shape = tuple(ops.shape(x))
    return (shape[0], *(1,) * (len(shape) - 1))


def _two_slopes(x: Any, forward: Any, backward: Any) -> Any:
    """``forward`` * x, whose gradient is ``backward`` * that of the result; in the type of the
    noise.
    """
    wide = ops.cast(x, forward.dtype)
    slope = wide * backward
    return slope + ops.stop_gradient(wide * forward - slope)


class _Two:
    """What layers of two inputs of one shape have in common."""

    def two(self: Any, inputs: Any) -> tuple[Any, Any]:
        first, second = (floating(x, self) for x in _pair(inputs, self))
        self.compute_output_shape([tuple(first.shape), tuple(second.shape)])
        return first, second

    def compute_output_shape(self, input_shape: Any) -> Any:
        first, second = _pair(input_shape, self)
        if len(first) != len(second) or any(
            m != n for m, n in zip(first, second, strict=True) if None not in (m, n)
        ):
            raise InputError(
                f"{type(self).__name__} needs two inputs of one shape, but got {tuple(first)} and {tuple(second)}"
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


@keras.saving.register_keras_serializable(PACKAGE)
class ShakeShake(_Two, keras.layers.Layer):
    """Two residual branches are blended by a random share, and their gradients by another: ``x +
    ShakeShake()([f(x), g(x)])``.

    a first + (1 - a) second while training, a ~ U(0, 1) for each example; gradients flow with b and
    1 - b, b ~ U(0, 1) drawn anew (``backward="shake"``), 1/2 (``"even"``) or a itself (``"keep"``).
    (first + second) / 2 in evaluation. Inputs: two of one shape [b, ...]. Gastaldi 2017,
    "Shake-shake regularization". Raises :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        backward: Literal["shake", "even", "keep"] = "shake",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backward = arguments.one_of(backward, "backward", ("shake", "even", "keep"))
        seeded(self, seed)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        first, second = self.two(inputs)
        if not training:
            return 0.5 * (first + second)
        dtype = engine.wide(first)
        draw = lambda: keras.random.uniform(_ones(first), dtype=dtype, seed=self.seed_generator)  # noqa: E731
        a = draw()
        b = {"shake": draw, "even": lambda: ops.full_like(a, 0.5), "keep": lambda: a}[
            self.backward
        ]()
        return ops.cast(
            _two_slopes(first, a, b) + _two_slopes(second, 1.0 - a, 1.0 - b), first.dtype
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "backward": self.backward, "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class ShakeDrop(Noisy, keras.layers.Layer):
    """With probability ``rate`` a residual branch is shaken instead of dropped: ``x +
    ShakeDrop(0.5)(branch)``.

    Input F [b, ...]. F while training with probability 1 - rate, one coin for the batch; else a F,
    a ~ U(``alpha``) for each example, with gradients that flow with b ~ U(``beta``) instead. (1 -
    rate + rate E[a]) F, the mean, in evaluation. ``rate`` in [0, 1] grows with depth, to 0.5 in the
    last block. With ``alpha`` and ``beta`` (0, 0) it is stochastic depth by batch.

    Yamada, Iwamura, Akiba, Kise 2019, equation 4. Raises :class:`thinned.InputError`, a ValueError.
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
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        dtype = engine.wide(x)
        rate = ops.cast(self.now(), dtype)
        if not training:
            return ops.cast(
                ops.cast(x, dtype) * (1.0 - rate + rate * 0.5 * sum(self.alpha)), x.dtype
            )
        shape = _ones(x)
        fell = keras.random.uniform((1,) * len(shape), dtype=dtype, seed=self.seed_generator) < rate
        a, b = (
            ops.where(
                fell,
                keras.random.uniform(shape, low, high, dtype=dtype, seed=self.seed_generator),
                1.0,
            )
            for low, high in (self.alpha, self.beta)
        )
        return ops.cast(_two_slopes(x, a, b), x.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {
            "rate": self.rate,
            "alpha": list(self.alpha),
            "beta": list(self.beta),
            "seed": self.seed,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(PACKAGE)
class Swapout(_Two, Noisy, keras.layers.Layer):
    """The skip connection falls too, unit by unit: ``Swapout(0.5)([x, branch])`` in the place of
    ``x + branch``.

    m1 x + m2 F while training, P(m2 = 0) = ``rate`` and P(m1 = 0) = ``skip_rate`` (None: always
    ``rate``), nothing scaled; (1 - skip_rate) x + (1 - rate) F, the mean, in evaluation; the paper
    prefers :func:`thinned.keras.predict` of 30 samples. Inputs: two of one shape [b, ...].
    ``skip_rate=0`` is classic dropout of the branch.

    Singh, Hoiem, Forsyth 2016, equation 4. Raises :class:`thinned.InputError`, a ValueError.
    """

    kind, others = "branch", ("skip_rate",)
    _own = moving("skip_rate")

    def __init__(
        self,
        rate: float = 0.5,
        skip_rate: float | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start(rate, seed)
        self._own = rate if skip_rate is None else skip_rate
        self.tied = skip_rate is None
        self.built = True

    @property
    def skip_rate(self) -> float:
        """The probability that a unit of the skip connection falls; settable at any time,
        :attr:`rate` until it is set.
        """
        return self.rate if self.tied else float(self._own)

    @skip_rate.setter
    def skip_rate(self, rate: float) -> None:
        self._own, self.tied = rate, False

    def call(self, inputs: Any, training: bool = False) -> Any:
        rates = (self.now() if self.tied else self.moving_skip_rate.state.value, self.now())
        pairs = list(zip(self.two(inputs), rates, strict=True))
        if not training:
            x, branch = (engine.mean(t, _CLASSIC, rate) for t, rate in pairs)
        else:
            x, branch = (engine.sample(t, _CLASSIC, rate, self.seed_generator) for t, rate in pairs)
        return x + branch

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rate": self.rate,
            "skip_rate": None if self.tied else self.skip_rate,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class LayerDrop(Noisy, keras.layers.Wrapper):
    """A whole layer is skipped with probability ``rate`` while training, one coin for the batch;
    nothing is scaled.

    ``layer``: a residual one whose output has the shape of its input, such as a block of a
    transformer; masks and further arguments of the call go to it. A skipped layer is computed all
    the same, since a compiled step has no branches, but gets no gradient. Evaluation is the layer,
    and so it can be left out of a smaller network. ``rate`` in [0, 1]: 0.1 to 0.2, up to 0.5 where
    layers will be pruned.

    Fan, Grave, Joulin 2020, section 3.2. Raises :class:`thinned.InputError`, a ValueError.
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
        self._fits(tuple(x.shape), tuple(y.shape))
        runs = (
            keras.random.uniform((1,) * len(y.shape), dtype="float32", seed=self.seed_generator)
            >= self.now()
        )
        return ops.where(runs, y, ops.cast(x, y.dtype))

    def _fits(self, given: Any, made: Any) -> None:
        if len(given) != len(made) or any(
            m != n for m, n in zip(given, made, strict=True) if None not in (m, n)
        ):
            raise InputError(
                f"LayerDrop needs a layer that keeps the shape {given}, but {self.layer.name} makes {made}"
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        shape = self.layer.compute_output_shape(input_shape)
        self._fits(tuple(input_shape), tuple(shape))
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
