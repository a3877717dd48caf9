"""What replaces the dropped elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

from .._errors import assert_never, real


@final
@dataclass(frozen=True, slots=True)
class Zero:
    """Replaces dropped elements by 0, as ordinary dropout does.

    Example:
        >>> from thinned import presets
        >>> presets.dropout(0.5).fill
        Zero()
    """


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """Replaces dropped elements by a constant.

    Alpha dropout uses the negative saturation of SELU.

    Args:
        value: The constant, a finite number.

    Raises:
        InputError: Where ``value`` is not a finite number.

    Example:
        >>> from thinned import presets
        >>> presets.alpha_dropout(0.1).fill
        Constant(value=-1.7580993408473766)
    """

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", real(self.value, "fill value"))


Fill: TypeAlias = Zero | Constant
FILLS = (Zero, Constant)


def value_of(fill: Fill) -> float:
    """Return the number that replaces a dropped element before any scale is applied."""
    match fill:
        case Zero():
            return 0.0
        case Constant():
            return fill.value
    return assert_never(fill)
