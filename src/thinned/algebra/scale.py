"""How training and evaluation are made to agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Inverted:
    """Divide by the law's mean while training (1/q for Bernoulli); evaluation is the identity."""


@dataclass(frozen=True, slots=True)
class Classic:
    """Nothing while training; evaluation multiplies by the law's mean (q for Bernoulli). Srivastava
    et al. 2014.
    """


@dataclass(frozen=True, slots=True)
class KeptFraction:
    """Divide by the fraction that was kept in this very draw; evaluation is the identity.
    DropBlock's rule.
    """


@dataclass(frozen=True, slots=True)
class MomentMatch:
    """Scale and shift so that input of mean 0 and variance 1 keeps both; evaluation is the
    identity. Klambauer et al. 2017.
    """


@dataclass(frozen=True, slots=True)
class Unscaled:
    """No scale while training and none in evaluation: means differ, and the method lives with it
    (LayerDrop, word dropout).
    """


Scale: TypeAlias = Inverted | Classic | KeptFraction | MomentMatch | Unscaled
