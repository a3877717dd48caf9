"""What stands in the place of what was dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .._errors import real


@dataclass(frozen=True, slots=True)
class Zero:
    """Zero: dropout as everyone knows it."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant, such as SELU's negative saturation (alpha dropout)."""

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", real(self.value, "fill value"))


Fill: TypeAlias = Zero | Constant
