"""Specs that drop weights."""

from __future__ import annotations

from typing import Literal

from .._errors import unknown
from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import scale_of
from .elementwise import TWO_SCALES


def drop_connect(
    p: float = 0.5,
    scale: Literal["inverted", "classic"] = "classic",
    per: Literal["example", "batch"] = "example",
) -> Drop:
    """DropConnect: zeroes each weight (and bias) with probability ``p`` in each example.

    Layout ``b o i``: a weight [o, i] as each example of a batch b sees it. The layer is
    :class:`thinned.nn.DropConnect`. As in the paper, nothing is scaled while training, and
    inference uses u ~ N(q W v, p q W^2 v^2) before the activation, with q = 1 - p. Two equal rows
    of a batch get different outputs. With ``per="batch"`` and ``scale="inverted"`` on the recurrent
    weights of an LSTM, it is the weight-drop of AWD-LSTM. EfficientNet's "drop_connect" is
    stochastic depth.

    Args:
        p: The probability of dropping, in [0, 1]; the paper uses 0.5 on fully connected layers.
        scale: "classic" or "inverted".
        per: "example" draws a mask for each example. "batch" draws one mask for the whole batch,
            on a weight of any shape; most other implementations do so.

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range or unknown.

    Example:
        >>> drop_connect(0.5).of, drop_connect(0.5, per="batch").of
        ('b o i', '*')

    Reference:
        Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of neural networks using
        DropConnect".
    """
    if per not in ("example", "batch"):
        raise unknown("per", per, ("example", "batch"))
    layout = "b o i" if per == "example" else "*"
    return Drop(
        Bernoulli(p),
        per=layout,
        of=layout,
        scale=scale_of(scale, TWO_SCALES),
        name="drop_connect",
    )
