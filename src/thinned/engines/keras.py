"""The Keras engine: draws the noise of a spec with keras.ops, on TensorFlow, JAX and torch alike.

The noise distribution is the same as in the other engines; the random bits are Keras's own. A rate
may be a tensor, so that a schedule can move it inside a compiled step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from .._errors import InputError
from ..algebra import per as _per
from ..algebra.drop import Drop
from ..algebra.fill import Constant
from ..algebra.law import Bernoulli, Gaussian
from ..algebra.per import Block
from ..algebra.scale import Classic, Inverted, KeptFraction, MomentMatch

Rate: TypeAlias = Any  # a float, or a tensor of no axes
# Sizes are numbers; tensors (in TensorFlow) or None where a size is not known yet.
Shape: TypeAlias = tuple[Any, ...]
NoiseShape: TypeAlias = Sequence[int | None] | None


def noise_dtype(x: Any) -> str:
    """The type to draw and compute in; half precision would bias every rate and every mean."""
    return "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"


def mask_shape(shape: Shape, spec: Drop, noise_shape: NoiseShape = None) -> tuple[Shape, Shape]:
    """(the shape of the independent draws, the extent of a block along each axis).

    ``shape`` is that of the input. ``noise_shape`` in Keras's form replaces the axes of the spec:
    1 where an axis shares its draws, None or the size of the axis otherwise. Raises
    :class:`thinned.InputError` where the two do not fit.
    """
    ones = (1,) * len(shape)
    if noise_shape is not None:
        return _explicit_mask_shape(shape, tuple(noise_shape)), ones
    block = spec.per if isinstance(spec.per, Block) else None
    own = _per.chosen((block.per or spec.of) if block else str(spec.per), spec.of, len(shape))
    draws = tuple(n if o else 1 for n, o in zip(shape, own, strict=True))
    if block is None:
        return draws, ones
    over = _per.chosen(block.over, spec.of, len(shape))
    unknown = [
        i for i, (o, n) in enumerate(zip(over, shape, strict=True)) if o and not isinstance(n, int)
    ]
    if unknown:
        raise InputError(
            f"blocks need a map of known size, but axis {unknown[0]} of {_describe(shape)} has "
            "none; give Input a shape"
        )
    extent = _per.block_sizes(block, over, _known_sizes(shape))
    return tuple(n - e + 1 if e > 1 else n for n, e in zip(draws, extent, strict=True)), extent


def _explicit_mask_shape(shape: Shape, noise_shape: tuple[int | None, ...]) -> Shape:
    fits = len(shape) == len(noise_shape) and all(
        m in (1, None) or not isinstance(n, int) or m == n
        for m, n in zip(noise_shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            "Invalid value received for argument `noise_shape`. Expected for each axis of the "
            f"input {_describe(shape)} its size, None or 1. Received: noise_shape={noise_shape}"
        )
    return tuple(1 if m == 1 else n for m, n in zip(noise_shape, shape, strict=True))


def _known_sizes(shape: Shape) -> tuple[int, ...]:
    """``shape`` with 1 for each size that is not known yet."""
    return tuple(n if isinstance(n, int) else 1 for n in shape)


def _describe(shape: Shape) -> str:
    return "(" + ", ".join(str(n) if isinstance(n, int) else "None" for n in shape) + ")"


def check(shape: Shape, spec: Drop, noise_shape: NoiseShape = None) -> None:
    """Raise :class:`thinned.InputError` where ``spec`` does not fit an input of ``shape``.

    Sizes in ``shape`` may be None.
    """
    if not (isinstance(spec.per, Block) and None in shape):
        mask_shape(shape, spec, noise_shape)


def bernoulli_mask(
    shape: Shape,
    spec: Drop,
    rate: Rate,
    seed: Any,
    noise_shape: NoiseShape = None,
    dtype: str = "float32",
) -> Any:
    """The mask of a Bernoulli distribution, True where kept; it broadcasts to ``shape``.

    A uniform number below the rate drops.
    """
    draws, extent = mask_shape(shape, spec, noise_shape)
    rate = ops.cast(rate, dtype)
    if max(extent) > 1:
        gamma = _per.seed_rate(1.0, extent, _known_sizes(shape))
        rate = ops.where(rate < 1, rate * gamma, ops.ones_like(rate))  # rate 1 drops every element
    uniform = keras.random.uniform(draws, dtype=dtype, seed=seed)
    if max(extent) == 1:
        return uniform >= rate
    return ops.logical_not(dilate(uniform < rate, extent))


def dilate(seeds: Any, extent: Shape) -> Any:
    """Grow each True of ``seeds`` [n, ...] into a block of ``extent``: bool [n + extent - 1, ...].

    A seed drops its own element and the next ``extent - 1`` along every axis.
    """
    for axis, size in enumerate(extent):
        if size > 1:
            pads = [[(0, 0)] * len(extent) for _ in range(size)]
            for shift in range(size):
                pads[shift][axis] = (shift, size - 1 - shift)
            counts = ops.cast(seeds, "int32")
            seeds = sum(ops.pad(counts, pad) for pad in pads) > 0
    return seeds


def coefficients(spec: Drop, rate: Rate) -> tuple[Any, Any, Any]:
    """(gain, shift, dropped), as :func:`thinned.algebra.plan.coefficients`, where the rate may be
    a tensor.
    """
    fill = spec.fill.value if isinstance(spec.fill, Constant) else 0.0
    if isinstance(spec.law, Bernoulli) and isinstance(spec.scale, (Inverted, MomentMatch)):
        below_one = ops.cast(rate < 1, rate.dtype)
        q = 1.0 - rate * below_one  # 1 instead of 0 at rate 1, so that nothing is divided by 0
        if isinstance(spec.scale, Inverted):
            return below_one / q, 0.0, 0.0
        gain = below_one * ops.rsqrt(q * (1.0 + rate * fill**2))
        shift = -gain * rate * fill
        return gain, shift, gain * fill + shift
    return 1.0, 0.0, fill


def sample(x: Any, spec: Drop, rate: Rate, seed: Any, noise_shape: NoiseShape = None) -> Any:
    """The training output for ``x`` [...] of a floating type: the same shape and type.

    ``seed`` is a keras SeedGenerator.
    """
    dtype = noise_dtype(x)
    y, rate = ops.cast(x, dtype), ops.cast(ops.convert_to_tensor(rate), dtype)
    shape = tuple(ops.shape(x))
    if not isinstance(spec.law, Bernoulli):
        draws, _ = mask_shape(shape, spec, noise_shape)
        return ops.cast(y * _continuous_noise(draws, spec, rate, seed, dtype), x.dtype)
    keep = bernoulli_mask(shape, spec, rate, seed, noise_shape, dtype)
    gain, shift, dropped = coefficients(spec, rate)
    if isinstance(spec.scale, KeptFraction):
        gain = gain * inverse_kept_fraction(keep, dtype)
    if isinstance(dropped, float) and dropped == 0.0:
        # A product with 0 would turn a dropped infinity or NaN into NaN; where() does not.
        return ops.cast(ops.where(keep, y, ops.zeros_like(y)) * gain, x.dtype)
    return ops.cast(ops.where(keep, y * gain + shift, ops.cast(dropped, dtype)), x.dtype)


def factor(shape: Shape, spec: Drop, rate: Rate, seed: Any, dtype: str = "float32") -> Any:
    """The factor a of y = a x, for specs that fill with zero; it broadcasts to ``shape``."""
    return sample(ops.ones(shape, dtype=dtype), spec, rate, seed)


def inverse_kept_fraction(keep: Any, dtype: str) -> Any:
    """The number of elements divided by how many of them are kept; 1 where none is."""
    kept = ops.sum(ops.cast(keep, dtype))
    count = ops.sum(ops.ones_like(keep, dtype=dtype))
    return count / ops.where(kept > 0, kept, count)


def _continuous_noise(draws: Shape, spec: Drop, rate: Any, seed: Any, dtype: str) -> Any:
    """Factors of mean 1: N(1, rate / (1 - rate)), or uniform on (1 - rate, 1 + rate)."""
    if isinstance(spec.law, Gaussian):
        normal = keras.random.normal(draws, dtype=dtype, seed=seed)
        return 1.0 + ops.sqrt(rate / (1.0 - rate)) * normal
    return 1.0 + rate * keras.random.uniform(draws, -1.0, 1.0, dtype=dtype, seed=seed)


def mean(x: Any, spec: Drop, rate: Rate) -> Any:
    """The evaluation output: the mean of the map under Classic, ``x`` under every other scale."""
    if not isinstance(spec.scale, Classic) or not isinstance(spec.law, Bernoulli):
        return x
    dtype = noise_dtype(x)
    rate = ops.cast(ops.convert_to_tensor(rate), dtype)
    _, _, dropped = coefficients(spec, rate)
    return ops.cast(ops.cast(x, dtype) * (1.0 - rate) + rate * dropped, x.dtype)
