"""Arguments in Keras's words."""

from __future__ import annotations

import math
from typing import Any

import keras

from .._errors import InputError, probability


def invalid(name: str, rule: str, value: Any) -> InputError:
    """The error for an argument, as Keras phrases it."""
    return InputError(
        f"Invalid value received for argument `{name}`. {rule} Received: {name}={value}"
    )


def rate_of(
    value: Any, name: str = "rate", *, below_one: bool = False, above_zero: bool = False
) -> float:
    """A rate in [0, 1] (without its ends where said), or :class:`thinned.InputError`, which is a
    ValueError.
    """
    rule = "Expected a float value between 0 and 1."
    if below_one or above_zero:
        rule = f"Expected a float value {'above' if above_zero else 'of at least'} 0 and {'below' if below_one else 'at most'} 1."
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
    """One of the ``known`` words."""
    if value not in known:
        raise invalid(name, f"Expected one of {', '.join(known)}.", repr(value))
    return str(value)


def range_of(value: Any, name: str) -> tuple[float, float]:
    """(low, high), low not above high."""
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
            raise invalid(
                "noise_shape",
                f"Expected all elements to be integers or None, but element {i} is {size!r}.",
                value,
            )
        if size is not None and size <= 0:
            rule = f"Expected all dimensions to be positive integers or None, but element {i} is {size}."
            raise invalid("noise_shape", rule, value)
    return sizes


def data_format_of(value: str | None) -> str:
    """Keras's own setting where None is given."""
    return one_of(
        value or keras.config.image_data_format(),
        "data_format",
        ("channels_last", "channels_first"),
    )


def block_of(value: Any, dims: int) -> int | tuple[int, ...]:
    """A whole number of at least 1, or one for each of ``dims`` axes."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    if len(sizes) != dims or any(
        isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sizes
    ):
        raise invalid("block_size", f"Expected an integer of at least 1, or {dims} of them.", value)
    return value if isinstance(value, int) else sizes


def real_of(value: Any, name: str, *, above: float | None = None) -> float:
    """A finite number, above ``above`` where that is given."""
    number = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not number or (above is not None and not value > above):
        raise invalid(
            name, f"Expected a float{'' if above is None else f' above {above:g}'}.", value
        )
    return float(value)
