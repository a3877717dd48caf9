"""Closed forms: the mean and variance of a spec, and the constants of some methods."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The mean and variance of a training output y, given the input x.

    E[y|x] = ``gain`` * x + ``shift``, and Var[y|x] = ``square`` * x^2 + ``linear`` * x +
    ``constant``.
    """

    gain: float
    shift: float
    square: float
    linear: float
    constant: float

    def mean(self, x: float) -> float:
        """Return E[y|x]."""
        return self.gain * x + self.shift

    def var(self, x: float) -> float:
        """Return Var[y|x]."""
        return self.square * x * x + self.linear * x + self.constant


def moments(drop: Drop) -> Moments:
    """Return the mean and variance of one output element while training, at the nominal rate.

    Args:
        drop: The spec.

    Returns:
        A record with the methods ``mean(x)`` and ``var(x)`` of an input element x.

    Raises:
        InputError: For a :class:`Block`, where elements share seeds, and for the scale
            :class:`KeptFraction`, which depends on the whole mask.

    Example:
        >>> moments(Drop(Bernoulli(0.5))).var(3.0)  # x^2 p / (1 - p)
        9.0
    """
    if isinstance(drop.per, Block):
        raise InputError(
            "a Block has no moments for one element, because elements share seeds; its dropped "
            "fraction is thinned.algebra.per.block_fraction"
        )
    if isinstance(drop.scale, KeptFraction):
        raise InputError(
            "the scale KeptFraction() has no moments for one element: it depends on the rest of "
            "the mask"
        )
    law = drop.law
    if not isinstance(law, Bernoulli):
        gain, shift, _ = coefficients(drop, 0.0)
        return Moments(
            gain=gain * law.mean(),
            shift=shift,
            square=gain * gain * law.var(),
            linear=0.0,
            constant=0.0,
        )
    p, q = law.p, 1.0 - law.p
    gain, shift, dropped = coefficients(drop, p)
    # kept: y = gain x + shift; dropped: y = dropped. The two differ by gain x + step.
    step = shift - dropped
    return Moments(
        gain=q * gain,
        shift=q * shift + p * dropped,
        square=p * q * gain * gain,
        linear=2.0 * p * q * gain * step,
        constant=p * q * step * step,
    )


def rectified_mean(mean: float, std: float) -> float:
    """Return E[max(0, z)] for z ~ N(mean, std^2): mean * Phi(mean / std) + std * phi(mean / std).

    It is the closed form of the inference of DropConnect with ReLU. (Wan et al. 2013 average
    samples of it.)
    """
    if std == 0.0:
        return max(0.0, mean)
    t = mean / std
    return mean * 0.5 * math.erfc(-t / math.sqrt(2.0)) + std * math.exp(-0.5 * t * t) / math.sqrt(
        2.0 * math.pi
    )


def variance_ratio_uniform(beta: float) -> float:
    """Return Var(test) / Var(train) of a zero-mean input under uniform dropout: 3 / (3 + beta^2).

    Li et al. 2019, section 5.
    """
    return 3.0 / (3.0 + beta * beta)
