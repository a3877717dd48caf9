"""Which point each paper is. ``CATALOG`` is the one table: tests, documentation, command line and studies read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .._errors import unknown
from ..algebra.drop import Drop
from .depth import drop_path, linear_rates, stochastic_depth
from .elementwise import alpha, dropout, gaussian, uout
from .recurrent import locked
from .spatial import dropblock, feature_alpha, spatial
from .weight import dropconnect

__all__ = [
    "CATALOG",
    "Preset",
    "alpha",
    "drop_path",
    "dropblock",
    "dropconnect",
    "dropout",
    "feature_alpha",
    "gaussian",
    "linear_rates",
    "locked",
    "make",
    "spatial",
    "stochastic_depth",
    "uout",
]


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of the catalogue. ``host``: the place where it acts. ``strength``: the name of its first argument."""

    fn: Callable[..., Drop]
    title: str
    paper: str
    year: int
    url: str
    host: str
    strength: str = "p"


_JMLR = "https://jmlr.org/papers/v15/srivastava14a.html"
_SELU = "https://arxiv.org/abs/1706.02515"

CATALOG: Mapping[str, Preset] = MappingProxyType(
    {
        "dropout": Preset(dropout, "Dropout", "Srivastava et al.", 2014, _JMLR, "activation"),
        "gaussian": Preset(gaussian, "Gaussian dropout", "Srivastava et al.", 2014, _JMLR, "activation"),
        "spatial": Preset(spatial, "SpatialDropout", "Tompson et al.", 2015, "https://arxiv.org/abs/1411.4280", "activation"),
        "dropblock": Preset(dropblock, "DropBlock", "Ghiasi et al.", 2018, "https://arxiv.org/abs/1810.12890", "activation"),
        "alpha": Preset(alpha, "Alpha dropout", "Klambauer et al.", 2017, _SELU, "activation"),
        "feature-alpha": Preset(feature_alpha, "Feature alpha dropout", "Klambauer et al.", 2017, _SELU, "activation"),
        "uout": Preset(uout, "Uout", "Li et al.", 2019, "https://arxiv.org/abs/1801.05134", "activation", "beta"),
        "dropconnect": Preset(
            dropconnect, "DropConnect", "Wan et al.", 2013, "https://proceedings.mlr.press/v28/wan13.html", "weight"
        ),
        "drop-path": Preset(drop_path, "Drop path", "Larsson et al.", 2017, "https://arxiv.org/abs/1605.07648", "activation"),
        "stochastic-depth": Preset(
            stochastic_depth, "Stochastic depth", "Huang et al.", 2016, "https://arxiv.org/abs/1603.09382", "activation"
        ),
        "locked": Preset(
            locked, "Locked (variational) dropout", "Gal and Ghahramani", 2016, "https://arxiv.org/abs/1512.05287", "activation"
        ),
    }
)


def make(name: str, *args: Any, **kwargs: Any) -> Drop:
    """The point that ``name`` is, with the preset's own arguments.

    >>> make("dropblock", p=0.1, block=5).per.size
    5

    Raises :class:`thinned.InputError` on an unknown name, with the nearest ones.
    """
    if name not in CATALOG:
        raise unknown("dropout method", name, CATALOG)
    return CATALOG[name].fn(*args, **kwargs)


def strength(name: str) -> str:
    """The name of a preset's rate: "p", or what stands for it.

    Raises :class:`thinned.InputError` on an unknown name.
    """
    if name not in CATALOG:
        raise unknown("dropout method", name, CATALOG)
    return CATALOG[name].strength
