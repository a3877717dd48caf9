"""Points on graphs. Their coins belong to the call: nodes and messages are no examples, so a key's
samples take no part.
"""

from __future__ import annotations

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Inverted


def drop_node(p: float = 0.5) -> Drop:
    """DropNode: the whole feature row of a node is zeroed with probability ``p``, before
    propagation.

    One coin for each node, on layout ``n *``: X [n, d] over all nodes of the graph (or batch of
    graphs). What stays is divided by 1 - p, as GRAND does, so that A X keeps its mean for every A;
    evaluation is X. The node stays in the graph and still receives. ``p`` is 0.5 in the paper.

    >>> drop_node(0.5).per
    'n'

    Feng, Zhang, Dong, Han, Luan, Xu, Yang, Kharlamov, Tang 2020, "Graph random neural networks for
    semi-supervised learning on graphs".
    """
    return Drop(Bernoulli(p), per="n", of="n *", scale=Inverted(), name="drop_node")


def drop_message(p: float = 0.5) -> Drop:
    """DropMessage: single elements of messages are zeroed, one coin for each edge and feature.

    On the messages M [e, d] of the edges, before they are added up at their targets, on layout ``e
    *``; what stays is divided by 1 - p, so that every sum keeps its mean; evaluation is M. Dropout
    of X, DropEdge and DropNode are this with shared coins: one for all messages of a node's
    feature, for a whole message, or for all messages of a node.

    >>> drop_message(0.3).per
    'e *'

    Fang, Xiao, Wang, Xu, Yang, Yang 2023, "DropMessage: unifying random dropping for graph neural
    networks".
    """
    return Drop(Bernoulli(p), per="e *", of="e *", scale=Inverted(), name="drop_message")
