"""The Keras engine: a point drawn with keras.ops, on TensorFlow, JAX and torch alike. The law is
ours, the bits are Keras's.

A rate may be a tensor, so that a schedule moves it inside a compiled step.
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
Shape: TypeAlias = tuple[
    Any, ...
]  # of numbers; of tensors (TensorFlow) or None where a size is not known yet


def wide(x: Any) -> str:
    """The type to draw and compute in: half precision would bias every rate and every mean."""
    return "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"


def cells(
    shape: Shape, spec: Drop, noise_shape: Sequence[int | None] | None = None
) -> tuple[Shape, Shape]:
    """(the shape of the coins, the extent of a block along each axis) on a tensor of ``shape``.

    ``noise_shape`` in Keras's way takes the place of the point's own coins: 1 where an axis shares,
    None or the axis's size where it does not. Raises :class:`thinned.InputError` where the two do
    not fit.
    """
    ones = (1,) * len(shape)
    if noise_shape is not None:
        return _given(shape, tuple(noise_shape)), ones
    block = spec.per if isinstance(spec.per, Block) else None
    own = _per.chosen((block.per or spec.of) if block else str(spec.per), spec.of, len(shape))
    coins = tuple(n if o else 1 for n, o in zip(shape, own, strict=True))
    if block is None:
        return coins, ones
    over = _per.chosen(block.over, spec.of, len(shape))
    unknown = [
        i for i, (o, n) in enumerate(zip(over, shape, strict=True)) if o and not isinstance(n, int)
    ]
    if unknown:
        raise InputError(
            f"blocks need a map of known size, but axis {unknown[0]} of {_shown(shape)} has none; give Input a shape"
        )
    extent = _per.block_sizes(block, over, tuple(n if isinstance(n, int) else 1 for n in shape))
    return tuple(n - e + 1 if e > 1 else n for n, e in zip(coins, extent, strict=True)), extent


def _given(shape: Shape, noise_shape: tuple[int | None, ...]) -> Shape:
    fits = len(shape) == len(noise_shape) and all(
        m in (1, None) or not isinstance(n, int) or m == n
        for m, n in zip(noise_shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"Invalid value received for argument `noise_shape`. Expected for each axis of the input {_shown(shape)} its size, "
            f"None or 1. Received: noise_shape={noise_shape}"
        )
    return tuple(1 if m == 1 else n for m, n in zip(noise_shape, shape, strict=True))


def _shown(shape: Shape) -> str:
    return "(" + ", ".join(str(n) if isinstance(n, int) else "None" for n in shape) + ")"


def check(shape: Shape, spec: Drop, noise_shape: Sequence[int | None] | None = None) -> None:
    """Raise :class:`thinned.InputError` where ``spec`` does not fit a tensor of ``shape``, in
    which sizes may be None.
    """
    if not (isinstance(spec.per, Block) and None in shape):
        cells(shape, spec, noise_shape)


def kept(
    shape: Shape,
    spec: Drop,
    rate: Rate,
    seed: Any,
    noise_shape: Sequence[int | None] | None,
    dtype: str,
) -> Any:
    """The mask of a Bernoulli law, True where kept; it broadcasts to ``shape``. A uniform number
    below the rate drops.
    """
    coins, extent = cells(shape, spec, noise_shape)
    rate = ops.cast(rate, dtype)
    if max(extent) > 1:
        gamma = _per.seed_rate(1.0, extent, tuple(n if isinstance(n, int) else 1 for n in shape))
        rate = ops.where(rate < 1, rate * gamma, ops.ones_like(rate))  # at 1 every place falls
    drawn = keras.random.uniform(coins, dtype=dtype, seed=seed)
    if max(extent) == 1:
        return drawn >= rate
    return ops.logical_not(dilated(drawn < rate, extent))


def dilated(fell: Any, extent: Shape) -> Any:
    """Each seed drops its place and the next ``extent - 1`` along every axis, which grows by as
    many; bool.
    """
    for axis, size in enumerate(extent):
        if size > 1:
            sides = [[(0, 0)] * len(extent) for _ in range(size)]
            for shift in range(size):
                sides[shift][axis] = (shift, size - 1 - shift)
            grown = ops.cast(fell, "int32")
            fell = sum(ops.pad(grown, side) for side in sides) > 0
    return fell


def coefficients(spec: Drop, rate: Rate) -> tuple[Any, Any, Any]:
    """(gain, shift, dropped) as :func:`thinned.algebra.plan.coefficients` has them, at a rate that
    may be a tensor.
    """
    fill = spec.fill.value if isinstance(spec.fill, Constant) else 0.0
    if isinstance(spec.law, Bernoulli) and isinstance(spec.scale, (Inverted, MomentMatch)):
        stays = ops.cast(rate < 1, rate.dtype)
        q = 1.0 - rate * stays  # 1 in the place of 0, so that nothing is divided by it
        if isinstance(spec.scale, Inverted):
            return stays / q, 0.0, 0.0
        gain = stays * ops.rsqrt(q * (1.0 + rate * fill**2))
        shift = -gain * rate * fill
        return gain, shift, gain * fill + shift
    return 1.0, 0.0, fill


def sample(
    x: Any, spec: Drop, rate: Rate, seed: Any, noise_shape: Sequence[int | None] | None = None
) -> Any:
    """What training sees: ``x`` [...] of a floating type, the same shape and type. ``seed``: a
    keras SeedGenerator.
    """
    dtype = wide(x)
    y, rate = ops.cast(x, dtype), ops.cast(ops.convert_to_tensor(rate), dtype)
    shape = tuple(ops.shape(x))
    if not isinstance(spec.law, Bernoulli):
        return ops.cast(
            y * _noise(cells(shape, spec, noise_shape)[0], spec, rate, seed, dtype), x.dtype
        )
    keep = kept(shape, spec, rate, seed, noise_shape, dtype)
    gain, shift, dropped = coefficients(spec, rate)
    if isinstance(spec.scale, KeptFraction):
        gain = gain * share(keep, dtype)
    if isinstance(dropped, float) and dropped == 0.0:  # what fell may hold anything
        return ops.cast(ops.where(keep, y, ops.zeros_like(y)) * gain, x.dtype)
    return ops.cast(ops.where(keep, y * gain + shift, ops.cast(dropped, dtype)), x.dtype)


def factor(shape: Shape, spec: Drop, rate: Rate, seed: Any, dtype: str = "float32") -> Any:
    """The factor a of y = a x for points that fill with zero; it broadcasts to ``shape``."""
    return sample(ops.ones(shape, dtype=dtype), spec, rate, seed)


def share(keep: Any, dtype: str) -> Any:
    """numel / (how many are kept), 1 where none is."""
    kept = ops.sum(ops.cast(keep, dtype))
    count = ops.sum(ops.ones_like(keep, dtype=dtype))
    return count / ops.where(kept > 0, kept, count)


def _noise(coins: Shape, spec: Drop, rate: Any, seed: Any, dtype: str) -> Any:
    """Factors of mean 1: normal of variance rate / (1 - rate), or uniform on (1 - rate, 1 + rate)."""
    if isinstance(spec.law, Gaussian):
        return 1.0 + ops.sqrt(rate / (1.0 - rate)) * keras.random.normal(
            coins, dtype=dtype, seed=seed
        )
    return 1.0 + rate * keras.random.uniform(coins, -1.0, 1.0, dtype=dtype, seed=seed)


def mean(x: Any, spec: Drop, rate: Rate) -> Any:
    """What evaluation sees: the mean of the map under Classic, ``x`` itself under every other
    scale.
    """
    if not isinstance(spec.scale, Classic) or not isinstance(spec.law, Bernoulli):
        return x
    dtype = wide(x)
    rate = ops.cast(ops.convert_to_tensor(rate), dtype)
    _, _, dropped = coefficients(spec, rate)
    return ops.cast(ops.cast(x, dtype) * (1.0 - rate) + rate * dropped, x.dtype)
