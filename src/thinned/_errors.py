"""Checks of arguments; their errors name the argument, the rule, the value and the remedy."""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, NoReturn


class InputError(ValueError):
    """The input breaks a stated rule; the message names the rule, the value and the remedy.

    Example:
        >>> import thinned
        >>> try:
        ...     thinned.presets.dropout(50)
        ... except thinned.InputError as error:
        ...     print(error)
        dropout probability has to be between 0 and 1, but got 50 (for 50 percent write 0.5)
    """


class ArgumentError(InputError, TypeError):
    """A call names an argument that does not exist, or passes a value of the wrong type.

    It is a TypeError as well, which is what Python and torch raise for such a call.
    """


class MissingNameError(InputError, KeyError):
    """A table has no such name. It is a KeyError as well, as for any mapping."""

    __str__ = ValueError.__str__  # that of KeyError quotes the message


def assert_never(value: NoReturn) -> NoReturn:
    """Close a match on a closed union: mypy reports a member that no case handles.

    At run time such a member raises AssertionError. ``typing.assert_never`` needs Python 3.11.
    """
    raise AssertionError(f"no case handles {value!r} of type {type(value).__name__}")


def probability(
    value: object, what: str = "dropout probability", *, below_one: bool = False
) -> float:
    """Return ``value`` as a float in [0, 1], or in [0, 1) with ``below_one``.

    The message begins as the one of PyTorch does, so code that matches on it keeps working.
    Raises :class:`InputError` where ``value`` is out of range or not a number.
    """
    if getattr(value, "requires_grad", False):
        raise learned_rate(value, what)
    number = real(value, what, "it is the probability of dropping, so 0.5 drops half")
    if not (0.0 <= number <= 1.0) or (below_one and number == 1.0):
        rule = "at least 0 and below 1" if below_one else "between 0 and 1"
        remedy = "it is the probability of dropping, so 0.5 drops half"
        if 1.0 < number <= 100.0:
            remedy = f"for {number:g} percent write {number / 100:g}"
        raise InputError(f"{what} has to be {rule}, but got {value} ({remedy})")
    return number


def learned_rate(value: object, what: str = "dropout probability") -> InputError:
    """Return the error for a rate that is to be learned: a draw has no gradient by its rate."""
    return InputError(
        f"{what} has to be a number, but got {type(value).__name__} with gradients, which would "
        "never be learned; thinned.nn.ConcreteDropout learns its rate"
    )


def real(value: object, what: str, remedy: str = "") -> float:
    """Return ``value`` as a finite float, or raise :class:`InputError`."""
    number = _float(value)
    if number is None:
        written = f" ({remedy})" if remedy else ""
        raise InputError(f"{what} has to be a number, but got {value!r}{written}")
    if not math.isfinite(number):
        raise InputError(f"{what} has to be a finite number, but got {value}")
    return number


def _float(value: Any) -> float | None:
    """``value`` as a float, or None where it is no single number."""
    if isinstance(value, (bool, str, type)) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # tensors and arrays of several numbers
        return None


def flag(value: object, what: str) -> bool:
    """Return ``value``, or raise :class:`InputError` unless it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{what} has to be True or False, but got {value!r}")
    return value


def choice(value: object, what: str, known: Iterable[str]) -> str:
    """Return ``value``, or raise :class:`InputError` unless it is one of the names ``known``."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise unknown(what, value, known)
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x' or 'y'?"`` with the known names nearest to ``name``.

    Returns the list of all known names where none is near.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + (", ".join(known) or "none")


def nearest_argument(name: str, known: Iterable[str]) -> str:
    """:func:`nearest` for the argument of a call, which knows the other names of a rate."""
    known = tuple(known)
    if name in _RATE_NAMES and "p" in known:
        return "did you mean 'p'?"
    return nearest(name, known)


# what other libraries call the rate of dropping
_RATE_NAMES = ("rate", "dropout", "drop_prob", "drop_rate", "dropout_p", "prob", "probability")


def unknown(what: str, name: object, known: Iterable[str], of: str = "") -> InputError:
    """Return the error for a name that is not in a table; ``of`` names the owner of the table."""
    owner = f" of {of}" if of else ""
    return InputError(f"unknown {what} {name!r}{owner}; {nearest(str(name), known)}")


def check_keywords(function: Callable[..., Any], keywords: Iterable[str], of: str) -> None:
    """Raise :class:`InputError` for the first of ``keywords`` that ``function`` does not take."""
    known = inspect.signature(function).parameters
    for keyword in keywords:
        if keyword not in known:
            raise InputError(
                f"unknown argument {keyword!r} of {of}; {nearest_argument(keyword, known)}"
            )


def whole(value: Any, what: str, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int from ``least`` to ``most``, or raise :class:`InputError`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{what} has to be a whole number, but got {value!r}")
    if value < least:
        raise InputError(f"{what} has to be at least {least}, but got {value}")
    if most is not None and value > most:
        raise InputError(f"{what} has to be at most {most}, but got {value}")
    return operator.index(value)
