"""Errors that say the argument, the rule, what was received and what to do."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """The caller's input breaks a stated rule; the message says which, and the remedy."""


def probability(
    value: object, what: str = "dropout probability", *, below_one: bool = False
) -> float:
    """Return ``value`` as a float in [0, 1] (in [0, 1) with ``below_one``), or raise
    :class:`InputError`.

    The text begins as PyTorch's does, so code that matches on it keeps working.
    """
    number = real(value, what)
    if not (0.0 <= number <= 1.0) or (below_one and number == 1.0):
        rule = "at least 0 and below 1" if below_one else "between 0 and 1"
        remedy = "it is the probability of dropping, so 0.5 drops half"
        if 1.0 < number <= 100.0:
            remedy = f"for {number:g} percent write {number / 100:g}"
        raise InputError(f"{what} has to be {rule}, but got {value} ({remedy})")
    return number


def real(value: object, what: str) -> float:
    """Return ``value`` as a finite float, or raise :class:`InputError`."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise InputError(f"{what} has to be a number, but got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{what} has to be a finite number, but got {value}")
    return number


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x' or 'y'?"`` for the known names nearest to ``name``, else what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + ", ".join(known)


def unknown(what: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table."""
    return InputError(f"unknown {what} {name!r}; {nearest(str(name), known)}")


def whole(value: Any, what: str, least: int, most: int | None = None) -> int:
    """``value`` as an int, or :class:`thinned.InputError` where it is not a whole number from
    ``least`` to ``most``.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{what} has to be a whole number, but got {value!r}")
    if value < least:
        raise InputError(f"{what} has to be at least {least}, but got {value}")
    if most is not None and value > most:
        raise InputError(f"{what} has to be at most {most}, but got {value}")
    return operator.index(value)
