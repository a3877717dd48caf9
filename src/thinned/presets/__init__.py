"""Which point each paper is, and ``CATALOG``, the table of all methods."""

from __future__ import annotations

from typing import Any

from .._errors import InputError, unknown
from ..algebra.drop import Drop
from .advice import ADVICE, Advice
from .catalog import CATALOG, Preset
from .depth import drop_path, linear_rates, stochastic_depth
from .elementwise import alpha, batchwise, dropout, gaussian, uout
from .graph import drop_message, drop_node
from .recurrent import locked
from .spatial import dropblock, feature_alpha, spatial
from .tokens import token
from .weight import dropconnect

__all__ = [
    "ADVICE",
    "CATALOG",
    "Advice",
    "Preset",
    "alpha",
    "batchwise",
    "drop_message",
    "drop_node",
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
    "token",
    "uout",
]


def _row(name: str) -> Preset:
    if name not in CATALOG:
        raise unknown("dropout method", name, CATALOG)
    return CATALOG[name]


def make(name: str, *args: Any, **kwargs: Any) -> Drop:
    """The point that ``name`` is, with the preset's own arguments.

    >>> make("dropblock", p=0.1, block=5).per.size
    5

    Raises :class:`thinned.InputError` on an unknown name, with the nearest ones, and for a method
    that is no point.
    """
    row = _row(name)
    if isinstance(row.fn, str):
        raise InputError(
            f"{name!r} is no point that goes anywhere, but thinned.{row.fn}: write {row.example}"
        )
    return row.fn(*args, **kwargs)


def strength(name: str) -> str:
    """The name of a method's rate: "p", or what stands for it.

    Raises :class:`thinned.InputError` on an unknown name.
    """
    return _row(name).strength
