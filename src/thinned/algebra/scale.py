"""How the training output and the evaluation output are made to agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from .._errors import unknown


@final
@dataclass(frozen=True, slots=True)
class Inverted:
    """Divides by the mean of the noise while training; evaluation is the identity.

    For Bernoulli noise the divisor is 1 - p.

    Example:
        >>> from thinned import presets
        >>> presets.dropout(0.5).scale
        Inverted()

    Reference:
        Srivastava et al. 2014, section 10.
    """


@final
@dataclass(frozen=True, slots=True)
class Classic:
    """Scales nothing while training; evaluation multiplies by the mean of the noise.

    For Bernoulli noise the factor is 1 - p.

    Example:
        >>> from thinned import presets
        >>> presets.dropout(0.5, scale="classic").scale
        Classic()

    Reference:
        Srivastava et al. 2014, section 4.
    """


@final
@dataclass(frozen=True, slots=True)
class KeptFraction:
    """Divides by the kept fraction of the present mask; evaluation is the identity.

    The mean is preserved in each draw and not only on average. It needs Bernoulli noise.

    Example:
        >>> from thinned import presets
        >>> presets.drop_block(0.1, 3).scale
        KeptFraction()

    Reference:
        Ghiasi, Lin, Le 2018, "DropBlock: a regularization method for convolutional networks",
        algorithm 1.
    """


@final
@dataclass(frozen=True, slots=True)
class MomentMatch:
    """Scales and shifts so that an input of mean 0 and variance 1 keeps both moments.

    Evaluation is the identity. It needs Bernoulli noise.

    Example:
        >>> from thinned import presets
        >>> presets.alpha_dropout(0.1).scale
        MomentMatch()

    Reference:
        Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks",
        equation 25.
    """


@final
@dataclass(frozen=True, slots=True)
class Unscaled:
    """Scales nothing in training and in evaluation, so the two outputs have different means.

    LayerDrop and word dropout are defined so.

    Example:
        >>> from thinned import presets
        >>> presets.drop_path(0.2, scale="unscaled").scale
        Unscaled()

    Reference:
        Fan, Grave, Joulin 2020, "Reducing transformer depth on demand with structured dropout".
    """


Scale: TypeAlias = Inverted | Classic | KeptFraction | MomentMatch | Unscaled
SCALES: dict[str, type[Scale]] = {
    "inverted": Inverted,
    "classic": Classic,
    "kept_fraction": KeptFraction,
    "moment_match": MomentMatch,
    "unscaled": Unscaled,
}


def scale_of(name: str, allowed: Sequence[str]) -> Scale:
    """Return the scale ``name``, or raise :class:`InputError` where it is not in ``allowed``."""
    if name not in allowed:
        raise unknown("scale", name, allowed)
    return SCALES[name]()
