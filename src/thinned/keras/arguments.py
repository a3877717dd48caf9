"""Checks of arguments, with errors in Keras's words."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from typing import Any

import keras

from .._errors import InputError, nearest, probability

# Keras pops these from **kwargs, so no signature names them.
_POPPED_BY_KERAS = ("input_shape", "input_dim")
# What the same argument is called in thinned.nn.
_TORCH_NAMES = {
    "p": "rate",
    "beta": "rate",
    "cell_p": "cell_rate",
    "skip_p": "skip_rate",
    "n_samples": "samples",
    "module": "layer",
}


def invalid(name: str, rule: str, value: Any) -> InputError:
    """The error for an argument, as Keras phrases it."""
    return InputError(
        f"Invalid value received for argument `{name}`. {rule} Received: {name}={value}"
    )


def check_keywords(kind: type, keywords: Iterable[str]) -> None:
    """Raise :class:`thinned.InputError` for a keyword that ``kind`` does not take, with the
    nearest ones.

    Known are the arguments of ``__init__`` of the class and of its bases, except for the abstract
    bases of this package: the class fills in their arguments itself.
    """
    known = {*_POPPED_BY_KERAS}
    for base in kind.__mro__:
        if "__init__" in vars(base) and not vars(base).get("abstract", False):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            known |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    for keyword in keywords:
        if keyword not in known:
            meant = _TORCH_NAMES.get(keyword)
            hint = f"did you mean {meant!r}?" if meant in known else nearest(keyword, known)
            raise InputError(f"{kind.__name__} has no argument {keyword!r}; {hint}")


def rate_of(
    value: Any, name: str = "rate", *, below_one: bool = False, above_zero: bool = False
) -> float:
    """A rate in [0, 1], without 1 under ``below_one`` and without 0 under ``above_zero``.

    Raises :class:`thinned.InputError`, which is a ValueError.
    """
    rule = "Expected a float value between 0 and 1."
    if below_one or above_zero:
        low, high = "above" if above_zero else "of at least", "below" if below_one else "at most"
        rule = f"Expected a float value {low} 0 and {high} 1."
    try:
        rate = probability(value, below_one=below_one)
    except InputError:
        raise invalid(name, rule, value) from None
    if above_zero and rate == 0.0:
        raise invalid(name, rule, value)
    return rate


def whole_of(value: Any, name: str, least: int) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise invalid(name, f"Expected an integer of at least {least}.", value)
    return value


def seed_of(value: Any) -> int | None:
    """None or an integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise invalid("seed", "Expected an integer or None.", value)
    return value


def one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    """One of the strings ``known``."""
    if value not in known:
        raise invalid(name, f"Expected one of {', '.join(known)}.", repr(value))
    return str(value)


def range_of(value: Any, name: str) -> tuple[float, float]:
    """(low, high), where low is not above high."""
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise invalid(name, "Expected a range (low, high).", value)
    return low, high


def noise_shape_of(value: Any) -> tuple[int | None, ...] | None:
    """A tuple of sizes and None, as Keras's Dropout takes it."""
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise invalid("noise_shape", "Expected a tuple or list of integers.", value)
    sizes = tuple(value)
    for i, size in enumerate(sizes):
        if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
            rule = f"Expected all elements to be integers or None, but element {i} is {size!r}."
            raise invalid("noise_shape", rule, value)
        if size is not None and size <= 0:
            rule = (
                "Expected all dimensions to be positive integers or None, but element "
                f"{i} is {size}."
            )
            raise invalid("noise_shape", rule, value)
    return sizes


def data_format_of(value: str | None) -> str:
    """Return "channels_last" or "channels_first"; None takes Keras's own setting."""
    return one_of(
        value or keras.config.image_data_format(),
        "data_format",
        ("channels_last", "channels_first"),
    )


def block_of(value: Any, dims: int | None) -> int | tuple[int, ...]:
    """A whole number of at least 1, or one for each of ``dims`` axes (of any number under None)."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,) * (dims or 1)
    fits = dims is None or len(sizes) == dims
    if not fits or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sizes):
        many = "one for each spatial axis" if dims is None else f"{dims} of them"
        raise invalid("block_size", f"Expected an integer of at least 1, or {many}.", value)
    return value if isinstance(value, int) else sizes


def real_of(value: Any, name: str, *, above: float | None = None) -> float:
    """A finite number, above ``above`` unless that is None."""
    number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not number or (above is not None and not value > above):
        rule = f"Expected a float{'' if above is None else f' above {above:g}'}."
        raise invalid(name, rule, value)
    return float(value)
