"""Points whose coins fall on whole tokens."""

from __future__ import annotations

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Inverted


def token_dropout(p: float = 0.1) -> Drop:
    """Token dropout: the whole vector of a token is zeroed with probability ``p``.

    One coin for each example and token, on layout ``b t d``; what stays is divided by 1 - p, and
    the sequence keeps its length (:func:`thinned.functional.patch_dropout` shortens it). For time
    first write ``nn.TokenDropout(p=0.1, layout="t b d")``. Word dropout replaces ids by
    "unknown" instead (:func:`thinned.functional.word_dropout`); embedding dropout drops a type of
    token everywhere.

    >>> token_dropout(0.1).per
    'b t'

    Sennrich, Haddow, Birch 2016, "Edinburgh neural machine translation systems for WMT 16", whose
    full words fall.
    """
    return Drop(Bernoulli(p), per="b t", of="b t d", scale=Inverted(), name="token_dropout")
