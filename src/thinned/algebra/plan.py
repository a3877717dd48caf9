"""A point on a shape, resolved to plain numbers: all that an engine needs to see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from . import per as _per
from .drop import Drop
from .fill import Constant
from .law import Bernoulli, Gaussian, Law
from .per import EXAMPLE, Block
from .scale import Classic, Inverted, KeptFraction, MomentMatch, Unscaled

LawName: TypeAlias = Literal["bernoulli", "gaussian", "uniform"]
WORDS = 1 << 32


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to a tensor of ``shape``.

    Cells are drawn on ``cells_shape``, which broadcasts to ``shape`` (a Block first dilates it by
    ``extent``). A cell of a Bernoulli law falls iff its word is below ``threshold``. Kept: y = gain
    * x + shift; dropped: y = dropped. A continuous law draws m = 1 + spread * noise and y = gain *
    m * x + shift. In evaluation y = mean_gain * x + mean_shift.
    """

    shape: tuple[int, ...]
    cells_shape: tuple[int, ...]
    sample_axis: int | None
    law: LawName
    threshold: int
    spread: float
    gain: float
    shift: float
    dropped: float
    mean_gain: float
    mean_shift: float
    extent: tuple[int, ...]
    kept_fraction: bool

    @property
    def samples(self) -> int:
        """How many examples have cells of their own (1 where all share)."""
        return 1 if self.sample_axis is None else self.shape[self.sample_axis]

    @property
    def cells(self) -> int:
        """Noise cells of one example."""
        return math.prod(n for i, n in enumerate(self.cells_shape) if i != self.sample_axis)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how many cells a step along each axis moves: 0 on shared axes and on the examples'
        axis.
        """
        own = [cells > 1 or n == 1 for cells, n in zip(self.cells_shape, self.shape, strict=True)]
        return tuple(
            strides(self.cells_shape, own, -1 if self.sample_axis is None else self.sample_axis)
        )

    @property
    def blocks(self) -> bool:
        return any(e > 1 for e in self.extent)

    @property
    def identity(self) -> bool:
        """Does drawing change nothing?"""
        return self.threshold == 0 and self.spread == 0 and (self.gain, self.shift) == (1.0, 0.0)

    @property
    def erased(self) -> bool:
        """Is everything dropped?"""
        return self.law == "bernoulli" and self.threshold == WORDS


def strides(cells: Sequence[int], own: Sequence[bool], axis: int) -> list[int]:
    """By how many cells a step along each axis moves: 0 on axes without cells of their own and on
    the examples', ``axis``.
    """
    out = [0] * len(cells)
    stride = 1
    for i in range(len(cells) - 1, -1, -1):
        if own[i] and i != axis:
            out[i] = stride
            stride = stride * cells[i]
    return out


def threshold(p: float) -> int:
    """The 32-bit threshold nearest to ``p``: a word below it drops. Only 0 and 1 themselves give
    never and always.
    """
    if p in (0.0, 1.0):
        return int(p) * WORDS
    return min(max(round(p * WORDS), 1), WORDS - 1)


def coefficients(drop: Drop, p: float) -> tuple[float, float, float]:
    """(gain, shift, dropped) of a point whose drop probability is exactly ``p`` (its mean is 1 for
    continuous laws).
    """
    fill = drop.fill.value if isinstance(drop.fill, Constant) else 0.0
    match drop.scale:
        case Inverted():
            gain, shift = (1.0 / (1.0 - p) if p < 1.0 else 0.0), 0.0
        case MomentMatch() if (
            p < 1.0
        ):  # Klambauer et al. 2017, equation 25, for mean 0 and variance 1
            gain = ((1.0 - p) * (1.0 + p * fill**2)) ** -0.5
            shift = -gain * p * fill
        case MomentMatch():
            return 0.0, 0.0, 0.0
        case Classic() | KeptFraction() | Unscaled():
            gain, shift = 1.0, 0.0
    return gain, shift, gain * fill + shift


@lru_cache(maxsize=4096)
def averages(drop: Drop) -> tuple[float, float]:
    """What evaluation does, as (gain, shift): the mean of the map under Classic, the identity under
    every other scale.
    """
    if not isinstance(drop.scale, Classic):
        return 1.0, 0.0
    kept_fraction = threshold(drop.law.p) / WORDS if isinstance(drop.law, Bernoulli) else 0.0
    gain, shift, dropped = coefficients(drop, kept_fraction)
    kept = 1.0 - kept_fraction if isinstance(drop.law, Bernoulli) else drop.law.mean()
    return kept * gain, kept_fraction * dropped + kept * shift


@lru_cache(maxsize=4096)
def plan(drop: Drop, shape: tuple[int, ...]) -> Plan:
    """Resolve ``drop`` on a tensor of ``shape``. Raises :class:`InputError` where they do not fit."""
    names = _per.expand(drop.of, len(shape))
    block = drop.per if isinstance(drop.per, Block) else None
    per = (block.per or drop.of) if block else str(drop.per)
    own = _per.chosen(per, drop.of, len(shape))
    cells = tuple(n if o else 1 for n, o in zip(shape, own, strict=True))
    extent = (1,) * len(shape)
    rate = kept_fraction = drop.law.p if isinstance(drop.law, Bernoulli) else 0.0
    if block and 0.0 < rate < 1.0 and math.prod(shape):
        extent = _per.block_sizes(block, _per.chosen(block.over, drop.of, len(shape)), shape)
        rate = _per.seed_rate(rate, extent, shape)
        cells = tuple(n - e + 1 for n, e in zip(cells, extent, strict=True))
    limit = threshold(rate)
    if not block:
        kept_fraction = limit / WORDS
    gain, shift, dropped = coefficients(drop, kept_fraction)
    mean = averages(drop)
    sample_axis = names.index(EXAMPLE) if EXAMPLE in names and own[names.index(EXAMPLE)] else None
    return Plan(
        shape, cells, sample_axis, _name(drop.law), limit, _spread(drop.law), gain, shift, dropped, *mean, extent,
        isinstance(drop.scale, KeptFraction),
    )  # fmt: skip


def _name(law: Law) -> LawName:
    return (
        "bernoulli"
        if isinstance(law, Bernoulli)
        else "gaussian"
        if isinstance(law, Gaussian)
        else "uniform"
    )


def _spread(law: Law) -> float:
    """The factor of the unit noise: standard normal, or uniform on (-1, 1)."""
    if isinstance(law, Bernoulli):
        return 0.0
    return math.sqrt(law.var()) if isinstance(law, Gaussian) else law.beta
