"""Points whose coins fall on weights."""

from __future__ import annotations

from typing import Literal

from .._errors import unknown
from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from .elementwise import scale_of


def drop_connect(
    p: float = 0.5,
    scale: Literal["inverted", "classic"] = "classic",
    per: Literal["example", "batch"] = "example",
) -> Drop:
    """DropConnect: each weight (and bias) is zeroed with probability ``p``, anew for every example.

    Layout ``b o i`` of a weight [o, i] seen by a batch b; ``DropConnect`` is the host. As in the
    paper nothing is scaled while training, and inference looks at u ~ N(q W v, p q W^2 v^2) before
    the activation. Two equal rows of a batch get different outputs. ``per="batch"`` is what most
    ports are: one mask for the whole batch, on a weight of any shape; with ``scale="inverted"``
    on an LSTM's recurrent weights it is the weight-drop of AWD-LSTM. ``p`` in [0, 1]; the paper
    uses 0.5 on fully connected layers. EfficientNet's "drop_connect" is stochastic depth.

    >>> drop_connect(0.5).of, drop_connect(0.5, per="batch").of
    ('b o i', '*')

    Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of neural networks using DropConnect".
    """
    if per not in ("example", "batch"):
        raise unknown("per", per, ("example", "batch"))
    layout = "b o i" if per == "example" else "*"
    return Drop(Bernoulli(p), per=layout, of=layout, scale=scale_of(scale), name="drop_connect")
