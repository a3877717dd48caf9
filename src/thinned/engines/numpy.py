"""The NumPy engine: the readable definition of every mask, on arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..algebra.key import LOW, MULTIPLIERS, ROUNDS, WEYL, WORD, Key, derive
from ..algebra.plan import WORDS, Plan

Words = NDArray[np.uint32]
_HALF = np.uint64(32)
_LOW = np.uint64(WORD)


def philox(
    counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]
) -> tuple[Words, Words, Words, Words]:
    """Return the four words of Philox4x32-10, for arrays of 32-bit counters and keys.

    The arrays broadcast.
    """
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    weyl0, weyl1 = (np.uint64(w) for w in WEYL)
    for _ in range(ROUNDS):
        a, b = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (b >> _HALF) ^ c1 ^ k0, b & _LOW, (a >> _HALF) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + weyl0) & _LOW, (k1 + weyl1) & _LOW
    w0, w1, w2, w3 = (w.astype(np.uint32) for w in np.broadcast_arrays(c0, c1, c2, c3))
    return w0, w1, w2, w3


def words(key: Key, examples: int, elements: int) -> Words:
    """Return the random words of the mask elements of each example: uint32 [examples, elements]."""
    ids = (
        np.arange(examples, dtype=np.uint64)
        if key.samples is None
        else np.asarray(key.samples).astype(np.uint64)
    )
    blocks = np.arange((elements + 7) // 8, dtype=np.uint64)  # eight elements share a Philox block

    def halves(flag: int) -> Words:
        counter = (
            blocks[None, :] | np.uint64(flag),
            (ids & _LOW)[:, None],
            (ids >> _HALF)[:, None],
            _column(key.step),
        )
        four: Words = np.stack(philox(counter, derive(key.seed, key.stream, key.call)), axis=-1)
        both: Words = np.stack((four & np.uint32(0xFFFF), four >> np.uint32(16)), axis=-1)
        return both.reshape(examples, 8 * len(blocks))

    out: Words = (halves(0) << np.uint32(16)) | halves(LOW)
    return out[:, :elements]


def _column(step: Any) -> NDArray[np.uint64]:
    return np.asarray(step).astype(np.uint64).reshape(-1, 1)


def _without_shared_ids(plan: Plan, key: Key) -> Key:
    """Return the key, without sample ids where all examples share one mask."""
    return key if plan.sample_axis is not None else replace(key, samples=None)


def _to_mask_shape(drawn: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Reshape [examples, elements] to ``plan.mask_shape``."""
    axis = plan.sample_axis
    if axis is None:
        return drawn.reshape(plan.mask_shape)
    rest = plan.mask_shape[:axis] + plan.mask_shape[axis + 1 :]
    return np.moveaxis(drawn.reshape(plan.examples, *rest), 0, axis)


def mask_words(plan: Plan, key: Key) -> Words:
    """Return the random words of the mask elements, of the shape ``plan.mask_shape``."""
    key = _without_shared_ids(plan, key)
    return _to_mask_shape(words(key, plan.examples, plan.elements), plan)


def kept(plan: Plan, key: Key) -> NDArray[np.bool_]:
    """Return the mask of a Bernoulli plan, True where kept; it broadcasts to ``plan.shape``."""
    is_dropped: NDArray[np.bool_] = mask_words(plan, key).astype(np.uint64) < plan.threshold
    for axis, size in enumerate(plan.extent):
        if size > 1:  # a seed drops its element and the next size - 1
            padding = [(0, 0)] * is_dropped.ndim
            padding[axis] = (size - 1, size - 1)
            windows = np.lib.stride_tricks.sliding_window_view(
                np.pad(is_dropped, padding), size, axis=axis
            )
            is_dropped = np.any(windows, axis=-1)
    return ~is_dropped


def noise(plan: Plan, key: Key) -> NDArray[np.float64]:
    """Return the unit noise of a continuous plan, of the shape ``plan.mask_shape``.

    It is standard normal (Box-Muller on pairs of elements) or uniform on (-1, 1).
    """
    if plan.law == "uniform":
        return (mask_words(plan, key).astype(np.float64) + 0.5) * (2.0 / WORDS) - 1.0
    even = plan.elements + plan.elements % 2
    drawn = words(_without_shared_ids(plan, key), plan.examples, even)
    u = (drawn.reshape(plan.examples, even // 2, 2) + 0.5) / WORDS
    radius, angle = np.sqrt(-2.0 * np.log(u[..., 0])), 2.0 * np.pi * u[..., 1]
    pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), -1)
    return _to_mask_shape(pairs.reshape(plan.examples, even)[:, : plan.elements], plan)


def sample(x: NDArray[Any], plan: Plan, key: Key) -> NDArray[Any]:
    """Return the training output, a new array of the shape and dtype of ``x``."""
    if plan.drops_everything:
        return np.full_like(x, plan.dropped)
    if plan.law != "bernoulli":
        return (x * (plan.gain * (1.0 + plan.spread * noise(plan, key))) + plan.shift).astype(
            x.dtype
        )
    keep = kept(plan, key)
    gain = plan.gain
    if plan.kept_fraction:
        gain *= keep.size / max(int(keep.sum()), 1)
    y = x * np.where(keep, gain, 0.0)
    if plan.shift or plan.dropped:
        y = y + np.where(keep, plan.shift, plan.dropped)
    return y.astype(x.dtype)


def mean(x: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Return the evaluation output; ``x`` itself where evaluation is the identity."""
    if (plan.mean_gain, plan.mean_shift) == (1.0, 0.0):
        return x
    return (x * plan.mean_gain + plan.mean_shift).astype(x.dtype)
