"""Laws of the noise m that a dropout multiplies by: what is drawn for one noise cell.

Throughout, p is the probability of DROPPING and q = 1 - p of keeping (Srivastava 2014 writes p for
keeping).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from .._errors import InputError, probability, real


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """m = 0 with probability ``p``, else 1. Srivastava et al. 2014."""

    p: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", probability(self.p))

    def mean(self) -> float:
        return 1.0 - self.p

    def var(self) -> float:
        return self.p * (1.0 - self.p)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """m ~ N(1, p / (1 - p)): the two first moments of inverted dropout at rate ``p`` (Srivastava
    2014, section 10).

    ``p`` is in [0, 1): at 1 the variance would be infinite.
    """

    p: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", probability(self.p, below_one=True))

    def mean(self) -> float:
        return 1.0

    def var(self) -> float:
        return self.p / (1.0 - self.p)


@dataclass(frozen=True, slots=True)
class Uniform:
    """m ~ U(1 - beta, 1 + beta), beta >= 0: Uout of Li et al. 2019, "Understanding the disharmony
    ...", section 5.
    """

    beta: float

    def __post_init__(self) -> None:
        beta = real(self.beta, "beta")
        if beta < 0:
            raise InputError(f"beta has to be at least 0, but got {self.beta}; Li et al. use 0.1")
        object.__setattr__(self, "beta", beta)

    def mean(self) -> float:
        return 1.0

    def var(self) -> float:
        return self.beta**2 / 3.0


Law: TypeAlias = Bernoulli | Gaussian | Uniform


def strength(law: Law) -> float:
    """The law's one number: ``p``, or ``beta``. 0 means no noise."""
    return law.beta if isinstance(law, Uniform) else law.p


def at(law: Law, value: float) -> Law:
    """The same law at another strength."""
    return replace(law, beta=value) if isinstance(law, Uniform) else replace(law, p=value)
