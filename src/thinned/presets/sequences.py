"""Points on sequences: one draw for all steps."""

from __future__ import annotations

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Inverted


def locked_dropout(p: float = 0.5) -> Drop:
    """Locked (variational) dropout: a feature that falls stays away for the whole sequence of its
    example.

    One coin for each example and feature, shared over time, on layout ``b t d``; for time first
    write ``nn.LockedDropout(p=0.5, layout="t b d")``. Between recurrent layers and on their
    input and output. ``p`` in [0, 1], 0.3 to 0.5 in the papers. For sequences of one step it is
    dropout.

    >>> locked_dropout(0.4).per
    'b d'

    Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
    networks"; "locked" is the name in Merity, Keskar, Socher 2018, "Regularizing and optimizing
    LSTM language models".
    """
    return Drop(Bernoulli(p), per="b d", of="b t d", scale=Inverted(), name="locked_dropout")
