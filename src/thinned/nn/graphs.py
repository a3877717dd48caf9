"""Dropout layers on graphs. Their draws are a function of the call, not of sample ids."""

from __future__ import annotations

from .. import functional, presets
from .._errors import flag
from ..algebra.schedule import Schedule
from .method import FunctionLayer
from .spec_layer import SpecLayer


class DropEdge(FunctionLayer):
    """DropEdge: removes random edges from a graph while training.

    Call it as ``layer(edge_index, *attributes)`` with ``edge_index`` int [2, edges] and attributes
    [edges, ...]. Output: the tuple (edge_index, kept, *attributes) of the kept edges, with ``kept``
    bool [edges]. Nothing is scaled: normalize the adjacency again with
    :func:`thinned.functional.gcn_normalize`, and add self-loops after this layer. Evaluation keeps
    all edges.

    Args:
        p: The probability of dropping an edge, in [0, 1], or a schedule of it.
        exact: Whether to keep exactly int((1 - p) edges) edges, as the paper does; False draws each
            edge on its own.
        undirected: Whether the two directions of an edge, and its copies, share their draw.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> layer = tnn.DropEdge(0.5, exact=True)
        >>> edge_index, kept = layer(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        >>> edge_index.shape, kept.shape
        (torch.Size([2, 2]), torch.Size([4]))

    Reference:
        Rong, Huang, Xu, Huang 2020, "DropEdge: towards deep graph convolutional networks on node
        classification"; :func:`thinned.functional.drop_edge`.
    """

    def __init__(
        self, p: float | Schedule = 0.5, exact: bool = False, undirected: bool = False
    ) -> None:
        super().__init__(
            functional.drop_edge,
            p=p,
            rate_sets_shape=True,
            exact=flag(exact, "exact"),
            undirected=flag(undirected, "undirected"),
        )


class DropNode(SpecLayer):
    """DropNode: zeroes all features of a node.

    Input: node features [nodes, ...]. Output: the same shape.

    Args:
        p: The probability of dropping a node, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropNode(0.5)
        DropNode(p=0.5, inplace=False)

    Reference:
        Feng et al. 2020, "Graph random neural networks for semi-supervised learning on graphs";
        :func:`thinned.presets.drop_node`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.drop_node, p, inplace)


class DropMessage(SpecLayer):
    """DropMessage: zeroes single elements of the messages that travel along the edges of a graph.

    Input: messages [edges, ...]. Output: the same shape.

    Args:
        p: The probability of dropping an element, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropMessage(0.5)
        DropMessage(p=0.5, inplace=False)

    Reference:
        Fang et al. 2023, "DropMessage: unifying random dropping for graph neural networks";
        :func:`thinned.presets.drop_message`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.drop_message, p, inplace)
