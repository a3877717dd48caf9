"""What happens to the edges of graphs, on plain index tensors: ``edge_index`` [2, edges], a column
(i, j) an edge.

Draws belong to the call: edges are no examples, so a key's samples take no part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError, whole
from ..engines.torch import reference
from .core import Keyed, bernoulli_mask, check_rate, is_noop, random_subset, resolve_key


def drop_edge(
    edge_index: Tensor,
    *attributes: Tensor,
    p: float = 0.5,
    exact: bool = False,
    undirected: bool = False,
    training: bool = True,
    key: Keyed = None,
) -> tuple[Tensor, ...]:
    """DropEdge: edges leave the graph while training. Returns (edge_index, kept, *attributes) of
    what stays.

    ``edge_index`` int [2, edges]; ``attributes`` [edges, ...] are filtered alike; ``kept`` bool
    [edges]. One coin for each edge; or with ``exact`` int((1 - p) edges) of them stay, every subset
    as likely, as in the paper. ``undirected``: the two directions of an edge (and its copies) share
    their fate, and ``exact`` counts pairs of nodes. Nothing is scaled: the paper normalises the
    adjacency anew, :func:`gcn_normalize`, and so self-loops are added after this. ``p`` in [0, 1];
    1 leaves no edge. Evaluation keeps all.

    Rong, Huang, Xu, Huang 2020, "DropEdge: towards deep graph convolutional networks on node
    classification".
    """
    edges = _edges(edge_index)
    for given in attributes:
        if not isinstance(given, Tensor) or given.dim() < 1 or len(given) != edges:
            got = list(given.shape) if isinstance(given, Tensor) else repr(given)
            raise InputError(
                f"attributes have to be tensors of {edges} rows, one an edge, but got {got}; the rate is p="
            )
    check_rate(p)
    if is_noop(edge_index, p, training):
        return (
            edge_index,
            torch.ones(edges, dtype=torch.bool, device=edge_index.device),
            *attributes,
        )
    owner = None
    if undirected:
        pairs, owner = edge_index.sort(0).values.unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
        edges = pairs.shape[1]
    if exact:
        kept = torch.zeros(edges, dtype=torch.bool, device=edge_index.device)
        kept[_some(edges, int((1.0 - p) * edges + 1e-9), key, edge_index.device)] = True
    else:
        kept = bernoulli_mask((edges,), p, key, edge_index, "e", "e")
    kept = kept if owner is None else kept[owner]
    return edge_index[:, kept], kept, *(given[kept] for given in attributes)


def gcn_normalize(
    edge_index: Tensor, nodes: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The renormalised adjacency D^-1/2 (A + I) D^-1/2 of a graph convolution, as (edge_index,
    weight) with its self-loops.

    A[i, j] is the weight (1 without ``weight`` [edges]) of the edge (i, j), copies added up; D are
    the row sums of A + I; so (result X)_i sums over the edges that begin at i, which for undirected
    graphs, with both directions listed, is the same either way. Self-loops come after the edges. A
    row whose sum is not above 0 has weights of 0. After :func:`drop_edge`, call it anew in every
    step.

    Kipf and Welling 2017, "Semi-supervised classification with graph convolutional networks",
    equation 2.
    """
    edges = _edges(edge_index)
    nodes = whole(nodes, "nodes", 1)
    if weight is not None and weight.shape != (edges,):
        raise InputError(
            f"weight has to be of shape [{edges}], one an edge, but got {list(weight.shape)}"
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
    given = (
        edge_index.new_ones(edges, dtype=torch.get_default_dtype()) if weight is None else weight
    )
    wide = given.to(reference.wide(given))
    loops = torch.arange(nodes, device=edge_index.device, dtype=edge_index.dtype)
    every = torch.cat((edge_index, loops.expand(2, nodes)), 1)
    entries = torch.cat((wide, wide.new_ones(nodes)))
    degree = wide.new_zeros(nodes).index_add(0, every[0], entries)
    root = torch.where(degree > 0, degree, 1.0).rsqrt() * (degree > 0)
    return every, (root[every[0]] * entries * root[every[1]]).to(given.dtype)


def _edges(edge_index: Tensor) -> int:
    """How many edges there are."""
    if (
        edge_index.dim() != 2
        or edge_index.shape[0] != 2
        or edge_index.dtype not in (torch.int64, torch.int32)
    ):
        raise InputError(
            f"edge_index has to be integers of shape [2, edges], but got {edge_index.dtype} {list(edge_index.shape)}"
        )
    return edge_index.shape[1]


def _some(edges: int, count: int, key: Keyed, device: torch.device) -> Tensor:
    """``count`` of ``edges`` places, drawn by the call, whoever the examples of ``key`` are."""
    return random_subset(1, edges, count, resolve_key(key)._replace(sample_ids=None), device)[0]
