"""Closed forms: the mean and variance of what a point does, and the constants that methods are
built from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._errors import InputError
from .drop import Drop
from .law import Bernoulli
from .per import Block
from .plan import coefficients
from .scale import KeptFraction

SELU_SATURATION = -1.7580993408473766  # -lambda * alpha of SELU, Klambauer et al. 2017


@dataclass(frozen=True, slots=True)
class Moments:
    """E[y|x] = ``gain`` * x + ``shift`` and Var[y|x] = ``square`` * x^2 + ``linear`` * x +
    ``constant``, at training.
    """

    gain: float
    shift: float
    square: float
    linear: float
    constant: float

    def mean(self, x: float) -> float:
        return self.gain * x + self.shift

    def var(self, x: float) -> float:
        return self.square * x * x + self.linear * x + self.constant


def moments(drop: Drop) -> Moments:
    """The first two moments of one element while training, at the nominal rate.

    >>> moments(Drop(Bernoulli(0.5))).var(3.0)  # x^2 p / q
    9.0

    Raises :class:`InputError` for blocks, whose places share seeds, and for Realised scales, which
    depend on the draw.
    """
    if isinstance(drop.per, Block):
        raise InputError(
            "a Block has no moments for one element; see thinned.algebra.per.block_fraction"
        )
    if isinstance(drop.scale, KeptFraction):
        raise InputError(
            "a Realised scale has no moments for one element: it depends on what else fell"
        )
    law = drop.law
    if not isinstance(law, Bernoulli):
        gain, shift, _ = coefficients(drop, 0.0)
        return Moments(gain * law.mean(), shift, gain * gain * law.var(), 0.0, 0.0)
    p, q = law.p, 1.0 - law.p
    gain, shift, dropped = coefficients(drop, p)
    step = shift - dropped
    return Moments(
        q * gain,
        q * shift + p * dropped,
        p * q * gain * gain,
        2.0 * p * q * gain * step,
        p * q * step * step,
    )


def rectified(mean: float, std: float) -> float:
    """E[max(0, z)] for z ~ N(mean, std^2): mean * Phi(mean / std) + std * phi(mean / std).

    The closed form of DropConnect's inference with ReLU (Wan et al. 2013 average samples of it).
    """
    if std == 0.0:
        return max(0.0, mean)
    t = mean / std
    return mean * 0.5 * math.erfc(-t / math.sqrt(2.0)) + std * math.exp(-0.5 * t * t) / math.sqrt(
        2.0 * math.pi
    )


def variance_ratio_uniform(beta: float) -> float:
    """Var(test) / Var(train) of a zero-mean input under Uout: 3 / (3 + beta^2) (Li et al. 2019)."""
    return 3.0 / (3.0 + beta * beta)
