"""Layers on graphs. Their draws belong to the call, so a key's samples take no part."""

from __future__ import annotations

from .. import functional
from ..algebra.schedule import Schedule
from .dropout import Dropout
from .method import MethodDropout


def DropEdge(
    p: float | Schedule = 0.5, exact: bool = False, undirected: bool = False
) -> MethodDropout:
    """Rong et al. 2020: :func:`thinned.functional.drop_edge`; call it with edge_index and whatever
    attributes edges have.
    """
    return MethodDropout(functional.drop_edge, p=p, shapes=True, exact=exact, undirected=undirected)


def DropNode(p: float | Schedule = 0.5) -> Dropout:
    """Feng et al. 2020 on node features [n, ...]: :func:`thinned.presets.drop_node`."""
    return Dropout("drop-node", p=p)


def DropMessage(p: float | Schedule = 0.5) -> Dropout:
    """Fang et al. 2023 on messages [edges, ...]: :func:`thinned.presets.drop_message`."""
    return Dropout("drop-message", p=p)
