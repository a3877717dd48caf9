"""Points whose coins fall on weights."""

from __future__ import annotations

from typing import Literal

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from .elementwise import scaling_of


def dropconnect(p: float = 0.5, scaling: Literal["inverted", "classic"] = "classic") -> Drop:
    """DropConnect: each weight (and bias) is zeroed with probability ``p``, anew for every example.

    Layout ``b o i`` of a weight [o, i] seen by a batch b; ``DropWeight`` is the host. As in the paper nothing is
    scaled while training, and inference looks at u ~ N(q W v, p q W^2 v^2) before the activation. Two equal rows of a
    batch get different outputs; most ports share one mask over the batch, which is another method. ``p`` in [0, 1];
    the paper uses 0.5 on fully connected layers. EfficientNet's "drop_connect" is stochastic depth.

    >>> dropconnect(0.5).of
    'b o i'

    Wan, Zeiler, Zhang, LeCun, Fergus 2013, "Regularization of neural networks using DropConnect".
    """
    return Drop(Bernoulli(p), per="b o i", of="b o i", scale=scaling_of(scaling), name="dropconnect")
