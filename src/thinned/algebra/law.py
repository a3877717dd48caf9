"""Noise distributions: what a dropout multiplies each element by.

Throughout, m is the noise, p the probability of DROPPING and q = 1 - p that of keeping. (Srivastava
et al. 2014 write p for keeping.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, final

from .._errors import InputError, assert_never, probability, real


@final
@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Zeros with probability ``p``: m is 0 with probability p, and 1 otherwise.

    Args:
        p: The probability of dropping, in [0, 1].

    Raises:
        InputError: Where ``p`` is not a number in [0, 1].

    Example:
        >>> Bernoulli(0.2).mean()
        0.8

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to
        prevent neural networks from overfitting", section 4.
    """

    p: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", probability(self.p))

    def mean(self) -> float:
        """The mean of m: 1 - p."""
        return 1.0 - self.p

    def var(self) -> float:
        """The variance of m: p (1 - p)."""
        return self.p * (1.0 - self.p)


@final
@dataclass(frozen=True, slots=True)
class Gaussian:
    """Normal noise m ~ N(1, p / (1 - p)).

    Its mean and variance are those of inverted dropout at the rate ``p``.

    Args:
        p: The rate of the dropout with the same variance, in [0, 1). At 1 the variance would be
            infinite.

    Raises:
        InputError: Where ``p`` is not a number in [0, 1).

    Example:
        >>> Gaussian(0.5).var()
        1.0

    Reference:
        Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from
        overfitting", section 10.
    """

    p: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", probability(self.p, below_one=True))

    def mean(self) -> float:
        """The mean of m: 1."""
        return 1.0

    def var(self) -> float:
        """The variance of m: p / (1 - p)."""
        return self.p / (1.0 - self.p)


@final
@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform noise m ~ U(1 - beta, 1 + beta).

    Args:
        beta: Half the width of the interval, at least 0.

    Raises:
        InputError: Where ``beta`` is not a finite number of at least 0.

    Example:
        >>> round(Uniform(0.3).var(), 6)
        0.03

    Reference:
        Li, Chen, Hu, Yang 2019, "Understanding the disharmony between dropout and batch
        normalization by variance shift", section 5 (Uout).
    """

    beta: float

    def __post_init__(self) -> None:
        beta = real(self.beta, "beta")
        if beta < 0:
            raise InputError(f"beta has to be at least 0, but got {self.beta}; Li et al. use 0.1")
        object.__setattr__(self, "beta", beta)

    def mean(self) -> float:
        """The mean of m: 1."""
        return 1.0

    def var(self) -> float:
        """The variance of m: beta^2 / 3."""
        return self.beta**2 / 3.0


Law: TypeAlias = Bernoulli | Gaussian | Uniform
LAWS = (Bernoulli, Gaussian, Uniform)


def rate_of(law: Law) -> float:
    """Return the one parameter of a noise distribution, p or beta. At 0 there is no noise."""
    match law:
        case Bernoulli() | Gaussian():
            return law.p
        case Uniform():
            return law.beta
    return assert_never(law)


def at_rate(law: Law, rate: float) -> Law:
    """Return the same distribution with another p or beta."""
    match law:
        case Bernoulli() | Gaussian():
            return replace(law, p=rate)
        case Uniform():
            return replace(law, beta=rate)
    return assert_never(law)
