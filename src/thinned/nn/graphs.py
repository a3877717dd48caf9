"""Layers on graphs. Their draws are a function of the call, not of the sample ids."""

from __future__ import annotations

from .. import functional, presets
from ..algebra.schedule import Schedule
from .method import FunctionLayer
from .spec_layer import SpecLayer


class DropEdge(FunctionLayer):
    """Rong et al. 2020: :func:`thinned.functional.drop_edge`; call it with edge_index and whatever
    attributes edges have.
    """

    def __init__(
        self, p: float | Schedule = 0.5, exact: bool = False, undirected: bool = False
    ) -> None:
        super().__init__(functional.drop_edge, p=p, shapes=True, exact=exact, undirected=undirected)


class DropNode(SpecLayer):
    """Feng et al. 2020 on node features [n, ...]: :func:`thinned.presets.drop_node`."""

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.drop_node, p, inplace)


class DropMessage(SpecLayer):
    """Fang et al. 2023 on messages [edges, ...]: :func:`thinned.presets.drop_message`."""

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.drop_message, p, inplace)
