"""What happens to a recurrent state."""

from __future__ import annotations

from torch import Tensor

from .. import presets
from .._errors import InputError
from .core import Keyed, drop
from .named import mode_of


def zoneout(new: Tensor, previous: Tensor, p: float = 0.5, training: bool = True, *, key: Keyed = None) -> Tensor:
    """Zoneout: each unit of a recurrent state keeps its previous value with probability ``p``.

    ``new`` and ``previous``: [b, ..., d]. previous + m (new - previous) while training, previous + (1 - p)(new - previous)
    in evaluation, which is the mean. p = 0 is the plain recurrence, p = 1 a state that never moves.

    Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations", section 3.2.
    """
    if new.shape != previous.shape:
        raise InputError(f"new and previous have to be of one shape, but got {list(new.shape)} and {list(previous.shape)}")
    return previous + drop(new - previous, presets.dropout(p, "classic"), mode=mode_of(training), key=key)
