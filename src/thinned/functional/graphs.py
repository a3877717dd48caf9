"""Dropout of the edges of graphs, on index tensors: a column (i, j) of ``edge_index`` is an edge.

Draws are keyed by the call: edges are not examples, so the sample ids of a key have no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError, whole
from ..engines.torch import reference
from .core import KeyLike, bernoulli_mask, check_rate, is_noop, random_subset, resolve_key
from .inputs import dense_inputs


@dense_inputs
def drop_edge(
    edge_index: Tensor,
    *attributes: Tensor,
    p: float = 0.5,
    exact: bool = False,
    undirected: bool = False,
    training: bool = True,
    key: KeyLike = None,
) -> tuple[Tensor, ...]:
    """DropEdge: removes edges from a graph while training.

    Each edge has its own Bernoulli draw, or with ``exact`` int((1 - p) edges) edges are kept, all
    subsets equally likely, as in the paper. Nothing is scaled: the paper normalizes the adjacency
    matrix again after each draw, see :func:`gcn_normalize`, which also adds the self-loops.
    Evaluation keeps all edges.

    Args:
        edge_index: int32 or int64 [2, edges].
        *attributes: Tensors [edges, ...] that are filtered like the edges.
        p: The rate of dropping, in [0, 1]; 1 keeps no edge.
        exact: Whether to drop a fixed number of edges.
        undirected: Whether the two directions of an edge, and its copies, share one draw; ``exact``
            then counts pairs of nodes.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        ``(edge_index, kept, *attributes)``: the kept edges, a bool mask [edges] of them, and their
        attributes.

    Raises:
        InputError: Where ``edge_index`` or an attribute has another shape, or ``p`` is not in
            [0, 1].

    Example:
        >>> from thinned import Key
        >>> edges = torch.tensor([[0, 0, 1, 1, 2, 3], [1, 2, 2, 3, 3, 0]])
        >>> drop_edge(edges, p=0.5, key=Key(seed=1))
        (tensor([[1, 2],
                [2, 3]]), tensor([False, False,  True, False,  True, False]))

    Reference:
        Rong, Huang, Xu, Huang 2020, "DropEdge: towards deep graph convolutional networks on node
        classification".
    """
    edges = _edge_count(edge_index)
    for attribute in attributes:
        if not isinstance(attribute, Tensor) or attribute.dim() < 1 or len(attribute) != edges:
            got = list(attribute.shape) if isinstance(attribute, Tensor) else repr(attribute)
            raise InputError(
                f"attributes have to be tensors of {edges} rows, one for each edge, but got {got}; "
                "pass the rate as p=..."
            )
    check_rate(p)
    if is_noop(edge_index, p, training):
        return (
            edge_index,
            torch.ones(edges, dtype=torch.bool, device=edge_index.device),
            *attributes,
        )
    pair_of_edge = None
    if undirected:
        pairs, pair_of_edge = edge_index.sort(0).values.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
        edges = pairs.shape[1]
    if exact:
        kept = torch.zeros(edges, dtype=torch.bool, device=edge_index.device)
        kept[_exact_subset(edges, int((1.0 - p) * edges + 1e-9), key, edge_index.device)] = True
    else:
        kept = bernoulli_mask((edges,), p, key, edge_index, "e", "e")
    kept = kept if pair_of_edge is None else kept[pair_of_edge]
    return edge_index[:, kept], kept, *(attribute[kept] for attribute in attributes)


@dense_inputs
def gcn_normalize(
    edge_index: Tensor, nodes: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Computes the renormalized adjacency matrix D^-1/2 (A + I) D^-1/2 of a graph convolution.

    A[i, j] is the sum of the weights of the edges (i, j); D holds the row sums of A + I. So row i
    of the product with a matrix sums over the edges that start at i; for undirected graphs, with
    both directions listed, the other convention is the same. A row with a sum of 0 or less has
    weights of 0. Call it again after each :func:`drop_edge`.

    Args:
        edge_index: int32 or int64 [2, edges].
        nodes: The number of nodes, at least 1.
        weight: [edges], the weights of the edges; None is 1 for each.

    Returns:
        ``(edge_index, weight)`` of the matrix, [2, edges + nodes] and [edges + nodes], with the
        self-loops after the edges.

    Raises:
        InputError: Where a shape is wrong, or an edge has a node that is not in [0, nodes).

    Example:
        >>> gcn_normalize(torch.tensor([[0, 1], [1, 0]]), nodes=3)
        (tensor([[0, 1, 0, 1, 2],
                [1, 0, 0, 1, 2]]), tensor([0.5000, 0.5000, 0.5000, 0.5000, 1.0000]))

    Reference:
        Kipf and Welling 2017, "Semi-supervised classification with graph convolutional networks",
        equation 2.
    """
    edges = _edge_count(edge_index)
    nodes = whole(nodes, "nodes", 1)
    if weight is not None and weight.shape != (edges,):
        raise InputError(
            f"weight has to be of shape [{edges}], one number for each edge, but got "
            f"{list(weight.shape)}"
        )
    if (
        not torch.compiler.is_compiling()
        and edges
        and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes
    ):
        wrong = int(edge_index.min()) if int(edge_index.min()) < 0 else int(edge_index.max())
        raise InputError(
            f"edge_index has to be at least 0 and below the {nodes} nodes, but got {wrong}"
        )
    if weight is None:
        weight = edge_index.new_ones(edges, dtype=torch.get_default_dtype())
    wide = weight.to(reference.wide(weight))
    loops = torch.arange(nodes, device=edge_index.device, dtype=edge_index.dtype)
    with_loops = torch.cat((edge_index, loops.expand(2, nodes)), 1)
    entries = torch.cat((wide, wide.new_ones(nodes)))
    degree = wide.new_zeros(nodes).index_add(0, with_loops[0], entries)
    inverse_root = torch.where(degree > 0, degree, 1.0).rsqrt() * (degree > 0)
    return with_loops, (inverse_root[with_loops[0]] * entries * inverse_root[with_loops[1]]).to(
        weight.dtype
    )


def _edge_count(edge_index: Tensor) -> int:
    """The number of edges, after a check of the shape and the dtype."""
    if (
        edge_index.dim() != 2
        or edge_index.shape[0] != 2
        or edge_index.dtype not in (torch.int64, torch.int32)
    ):
        raise InputError(
            "edge_index has to be integers of shape [2, edges], but got "
            f"{edge_index.dtype} {list(edge_index.shape)}"
        )
    return edge_index.shape[1]


def _exact_subset(edges: int, count: int, key: KeyLike, device: torch.device) -> Tensor:
    """``count`` of ``edges`` indices, keyed by the call; the sample ids of ``key`` are not used."""
    return random_subset(1, edges, count, resolve_key(key)._replace(sample_ids=None), device)[0]
