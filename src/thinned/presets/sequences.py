"""Specs for sequences that draw once for all steps."""

from __future__ import annotations

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Inverted


def locked_dropout(p: float = 0.5) -> Drop:
    """Locked (variational) dropout: drops the same features at every step of a sequence.

    There is one draw for each example and feature, shared over time, on the layout ``b t d``; for
    time first write ``nn.LockedDropout(p=0.5, layout="t b d")``. Use it between recurrent layers
    and on their input and output. For sequences of one step it is dropout.

    Args:
        p: The probability of dropping, in [0, 1]; 0.3 to 0.5 in the papers.

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> locked_dropout(0.4).per
        'b d'

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks"; "locked" is the name in Merity, Keskar, Socher 2018, "Regularizing and
        optimizing LSTM language models".
    """
    return Drop(Bernoulli(p), per="b d", of="b t d", scale=Inverted(), name="locked_dropout")
