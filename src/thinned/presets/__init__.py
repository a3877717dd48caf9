"""Which point each paper is, and ``CATALOG``, the table of all methods."""

from __future__ import annotations

from typing import Any

from .._errors import InputError, unknown
from ..algebra.drop import Drop
from .advice import ADVICE, Advice
from .catalog import CATALOG, Preset
from .depth import drop_path, linear_rates, stochastic_depth
from .elementwise import (
    alpha_dropout,
    batchwise_dropout,
    dropout,
    gaussian_dropout,
    uniform_dropout,
)
from .graph import drop_message, drop_node
from .sequences import locked_dropout
from .spatial import drop_block, feature_alpha_dropout, spatial_dropout
from .tokens import token_dropout
from .weight import drop_connect

__all__ = [
    "ADVICE",
    "CATALOG",
    "Advice",
    "Preset",
    "alpha_dropout",
    "batchwise_dropout",
    "drop_block",
    "drop_connect",
    "drop_message",
    "drop_node",
    "drop_path",
    "dropout",
    "feature_alpha_dropout",
    "gaussian_dropout",
    "linear_rates",
    "locked_dropout",
    "make",
    "spatial_dropout",
    "stochastic_depth",
    "token_dropout",
    "uniform_dropout",
]


def _row(name: str) -> Preset:
    if name not in CATALOG:
        raise unknown("dropout method", name, CATALOG)
    return CATALOG[name]


def make(name: str, *args: Any, **kwargs: Any) -> Drop:
    """The point that ``name`` is, with the preset's own arguments.

    >>> make("drop_block", p=0.1, block_size=5).per.size
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
