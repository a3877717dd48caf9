"""``Plan``: a spec on one shape, resolved to the numbers that an engine needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from .._errors import assert_never
from . import per as _per
from .drop import Drop
from .fill import value_of
from .key import check_size
from .law import Bernoulli, Gaussian, Law, Uniform
from .per import EXAMPLE, Block
from .scale import Classic, Inverted, KeptFraction, MomentMatch, Unscaled

LawName: TypeAlias = Literal["bernoulli", "gaussian", "uniform"]
WORDS = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A spec on a tensor of one shape, as numbers. :func:`plan` makes it.

    A Bernoulli element is dropped where its random 32-bit word is below ``threshold``. Kept
    elements become y = gain x + shift, dropped ones y = dropped. A continuous distribution draws
    m = 1 + spread * noise, and y = gain m x + shift. Evaluation is y = mean_gain x + mean_shift.

    Args:
        shape: The shape of the input.
        mask_shape: The shape on which noise is drawn; it broadcasts to ``shape``. For a
            :class:`Block`, the shape of the seeds, before they grow by ``extent``.
        sample_axis: The axis of the examples; None where they share one mask.
        law: "bernoulli", "gaussian" or "uniform".
        threshold: The number of 32-bit words that drop, in [0, 2^32].
        spread: The factor of the unit noise of a continuous distribution.
        gain: The factor of kept elements.
        shift: What is added to kept elements.
        dropped: The value of dropped elements.
        mean_gain: The factor in evaluation.
        mean_shift: What is added in evaluation.
        extent: The size of a block along each axis, 1 where it does not extend.
        kept_fraction: Whether ``gain`` is divided by the kept fraction of the mask.

    Example:
        >>> from thinned import presets
        >>> spatial = plan(presets.spatial_dropout(0.5), (8, 3, 4, 4))
        >>> spatial.mask_shape, spatial.gain
        ((8, 3, 1, 1), 2.0)
    """

    shape: tuple[int, ...]
    mask_shape: tuple[int, ...]
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
    def examples(self) -> int:
        """The number of examples that have separate masks, 1 where all share one."""
        return 1 if self.sample_axis is None else self.shape[self.sample_axis]

    @property
    def elements(self) -> int:
        """The number of mask elements of one example."""
        return math.prod(n for i, n in enumerate(self.mask_shape) if i != self.sample_axis)

    @property
    def strides(self) -> tuple[int, ...]:
        """The step between mask elements along each axis of the input.

        It is 0 on shared axes and on the axis of the examples.
        """
        own = [drawn > 1 or n == 1 for drawn, n in zip(self.mask_shape, self.shape, strict=True)]
        return tuple(
            strides(self.mask_shape, own, -1 if self.sample_axis is None else self.sample_axis)
        )

    @property
    def has_blocks(self) -> bool:
        """Whether seeds grow to blocks."""
        return any(e > 1 for e in self.extent)

    @property
    def is_identity(self) -> bool:
        """Whether the training output is always the input."""
        return self.threshold == 0 and self.spread == 0 and (self.gain, self.shift) == (1.0, 0.0)

    @property
    def drops_everything(self) -> bool:
        """Whether every element is dropped."""
        return self.law == "bernoulli" and self.threshold == WORDS


def strides(mask_shape: Sequence[int], own: Sequence[bool], axis: int) -> list[int]:
    """Return the step between mask elements along each axis.

    It is 0 where ``own`` is False, and on the axis of the examples, ``axis``: their masks differ by
    the sample id and not by the element.
    """
    out = [0] * len(mask_shape)
    stride = 1
    for i in range(len(mask_shape) - 1, -1, -1):
        if own[i] and i != axis:
            out[i] = stride
            stride = stride * mask_shape[i]
    return out


def threshold(p: float) -> int:
    """Return the 32-bit threshold nearest to ``p``: a word below it drops.

    Only the rates 0 and 1 give 0 (never) and 2^32 (always).
    """
    if p in (0.0, 1.0):
        return int(p) * WORDS
    return min(max(round(p * WORDS), 1), WORDS - 1)


def coefficients(drop: Drop, p: float) -> tuple[float, float, float]:
    """Return (gain, shift, dropped) where the probability of dropping is exactly ``p``.

    Kept elements become gain x + shift, dropped ones ``dropped``. Continuous noise has the mean 1,
    so for it ``p`` is 0.
    """
    fill = value_of(drop.fill)
    match drop.scale:
        case Inverted():
            gain, shift = (1.0 / (1.0 - p) if p < 1.0 else 0.0), 0.0
        case MomentMatch():
            if p == 1.0:
                return 0.0, 0.0, 0.0
            # Klambauer et al. 2017, equation 25, for mean 0 and variance 1
            gain = ((1.0 - p) * (1.0 + p * fill**2)) ** -0.5
            shift = -gain * p * fill
        case Classic() | KeptFraction() | Unscaled():
            gain, shift = 1.0, 0.0
        case _:
            assert_never(drop.scale)
    return gain, shift, gain * fill + shift


@lru_cache(maxsize=4096)
def averages(drop: Drop) -> tuple[float, float]:
    """Return (gain, shift) of evaluation: the mean map for Classic, the identity otherwise."""
    if not isinstance(drop.scale, Classic):
        return 1.0, 0.0
    # The rate of the threshold and not the nominal rate, so that evaluation is the exact mean of
    # what training draws.
    dropped_fraction = threshold(drop.law.p) / WORDS if isinstance(drop.law, Bernoulli) else 0.0
    gain, shift, dropped = coefficients(drop, dropped_fraction)
    kept = 1.0 - dropped_fraction if isinstance(drop.law, Bernoulli) else drop.law.mean()
    return kept * gain, dropped_fraction * dropped + kept * shift


@lru_cache(maxsize=4096)
def plan(drop: Drop, shape: tuple[int, ...]) -> Plan:
    """Resolve a spec on a tensor of one shape.

    Args:
        drop: The spec.
        shape: The shape of the input.

    Returns:
        The numbers that an engine needs.

    Raises:
        InputError: Where the layout of the spec does not fit the shape, or one example has more
            than 2^34 mask elements.

    Example:
        >>> from thinned import presets
        >>> plan(presets.dropout(0.25), (2, 3)).threshold == 2**32 // 4
        True
    """
    rank = len(shape)
    names = _per.expand(drop.of, rank)
    match drop.per:
        case str():
            block, per = None, drop.per
        case Block():
            block, per = drop.per, drop.per.per or drop.of
        case _:
            assert_never(drop.per)
    own = _per.chosen(per, drop.of, rank)
    mask_shape = tuple(n if o else 1 for n, o in zip(shape, own, strict=True))
    extent = (1,) * rank
    rate = nominal = drop.law.p if isinstance(drop.law, Bernoulli) else 0.0
    if block and 0.0 < rate < 1.0 and math.prod(shape):
        extent = _per.block_sizes(block, _per.chosen(block.over, drop.of, rank), shape)
        rate = _per.seed_rate(rate, extent, shape)
        # a seed stands at the first element of its block, and only where the whole block fits
        mask_shape = tuple(n - e + 1 for n, e in zip(mask_shape, extent, strict=True))
    limit = threshold(rate)
    sample_axis = names.index(EXAMPLE) if EXAMPLE in names and own[names.index(EXAMPLE)] else None
    check_size(math.prod(n for i, n in enumerate(mask_shape) if i != sample_axis))
    # The scale follows the rate that the 32-bit threshold has, so that E[y] = x holds exactly; the
    # scale of blocks follows the kept fraction of each mask instead.
    gain, shift, dropped = coefficients(drop, nominal if block else limit / WORDS)
    mean_gain, mean_shift = averages(drop)
    law, spread = _law_constants(drop.law)
    return Plan(
        shape=shape,
        mask_shape=mask_shape,
        sample_axis=sample_axis,
        law=law,
        threshold=limit,
        spread=spread,
        gain=gain,
        shift=shift,
        dropped=dropped,
        mean_gain=mean_gain,
        mean_shift=mean_shift,
        extent=extent,
        kept_fraction=isinstance(drop.scale, KeptFraction),
    )


def _law_constants(law: Law) -> tuple[LawName, float]:
    """Return the name of a distribution, and the factor of its unit noise.

    Unit noise is standard normal, or uniform on (-1, 1).
    """
    match law:
        case Bernoulli():
            return "bernoulli", 0.0
        case Gaussian():
            return "gaussian", math.sqrt(law.var())
        case Uniform():
            return "uniform", law.beta
    return assert_never(law)
