"""The specs of published methods, and ``CATALOG``, the table of all methods."""

from __future__ import annotations

from .._errors import InputError, check_keywords, choice
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
    return CATALOG[choice(name, "dropout method", CATALOG)]


def make(name: str, **settings: float | int | str | tuple[int, ...]) -> Drop:
    """Return the spec of a method by its name in ``CATALOG``.

    Args:
        name: The name of the method, such as ``"drop_block"``.
        **settings: The arguments of the preset function of that name.

    Returns:
        The spec.

    Raises:
        InputError: For an unknown name or argument, with the nearest known ones, and for a method
            that a Drop cannot express.

    Example:
        >>> make("drop_block", p=0.1, block_size=5).per.size
        5
    """
    row = _row(name)
    if row.make is None:
        raise InputError(
            f"{name!r} cannot be expressed as a Drop; use thinned.{row.constructor}, for example "
            f"{row.example}"
        )
    check_keywords(row.make, settings, repr(name))
    return row.make(**settings)


def rate_name(name: str) -> str:
    """Return the name of the argument that holds the rate of a method, such as "p" or "beta".

    Raises :class:`thinned.InputError` for an unknown name.
    """
    return _row(name).rate_name
