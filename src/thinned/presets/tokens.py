"""Specs that drop whole tokens."""

from __future__ import annotations

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Inverted


def token_dropout(p: float = 0.1) -> Drop:
    """Token dropout: zeroes the whole vector of a token with probability ``p``.

    There is one draw for each example and token, on the layout ``b t d``. Kept vectors are divided
    by 1 - p, and the sequence keeps its length (:func:`thinned.functional.patch_dropout` shortens
    it). For time first write ``nn.TokenDropout(p=0.1, layout="t b d")``. Two related methods: word
    dropout replaces ids by "unknown" (:func:`thinned.functional.word_dropout`), and embedding
    dropout drops a type of token everywhere.

    Args:
        p: The probability of dropping, in [0, 1].

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> token_dropout(0.1).per
        'b t'

    Reference:
        Sennrich, Haddow, Birch 2016, "Edinburgh neural machine translation systems for WMT 16",
        which drops full words.
    """
    return Drop(Bernoulli(p), per="b t", of="b t d", scale=Inverted(), name="token_dropout")
