"""Specs for graphs.

Nodes and messages are not examples: their masks are keyed by the call alone, and the sample ids of
a key play no role.
"""

from __future__ import annotations

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Inverted


def drop_node(p: float = 0.5) -> Drop:
    """DropNode: zeroes the whole feature row of a node with probability ``p``, before propagation.

    There is one draw for each node, on the layout ``n *``: X [n, d] over all nodes of the graph (or
    batch of graphs). Kept rows are divided by 1 - p, as GRAND does, so that A X keeps its mean for
    every A; evaluation is X. A dropped node remains in the graph and still receives messages.

    Args:
        p: The probability of dropping, in [0, 1]; 0.5 in the paper.

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> drop_node(0.5).per
        'n'

    Reference:
        Feng, Zhang, Dong, Han, Luan, Xu, Yang, Kharlamov, Tang 2020, "Graph random neural networks
        for semi-supervised learning on graphs".
    """
    return Drop(Bernoulli(p), per="n", of="n *", scale=Inverted(), name="drop_node")


def drop_message(p: float = 0.5) -> Drop:
    """DropMessage: zeroes single elements of messages, with one draw for each edge and feature.

    It acts on the messages M [e, d] of the edges, before they are summed at their targets, on the
    layout ``e *``. Kept elements are divided by 1 - p, so that every sum keeps its mean; evaluation
    is M. Dropout of X, DropEdge and DropNode are this method with shared draws: one for a feature
    in all messages of a node, one for a whole message, or one for all messages of a node.

    Args:
        p: The probability of dropping, in [0, 1].

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> drop_message(0.3).per
        'e *'

    Reference:
        Fang, Xiao, Wang, Xu, Yang, Yang 2023, "DropMessage: unifying random dropping for graph
        neural networks".
    """
    return Drop(Bernoulli(p), per="e *", of="e *", scale=Inverted(), name="drop_message")
