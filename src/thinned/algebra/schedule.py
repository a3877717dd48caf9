"""Rates that change with the step: a schedule stands wherever a rate stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from .._errors import InputError, probability, real


def _steps(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"{name} has to be a whole number of steps of at least {least}, but got {value!r}"
        )


@dataclass(frozen=True, slots=True)
class Linear:
    """From ``start`` to ``end`` in equal parts over ``steps`` steps, then ``end``. DropBlock ramps
    so.

    As a drop path rate it is ScheduledDropPath: Zoph, Vasudevan, Shlens, Le 2018, "Learning
    transferable architectures".
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        probability(self.start, "start")
        probability(self.end, "end")
        _steps("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True, slots=True)
class Cosine:
    """From ``start`` to ``end`` along half a cosine over ``steps`` steps, then ``end``."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        Linear(self.start, self.end, self.steps)

    def __call__(self, step: int) -> float:
        return self.end + (self.start - self.end) * 0.5 * (
            1.0 + math.cos(math.pi * min(step / self.steps, 1.0))
        )


@dataclass(frozen=True, slots=True)
class Early:
    """``p`` before step ``until``, then 0: early dropout, against underfitting (Liu et al. 2023).
    ``decay``: falls linearly.
    """

    p: float
    until: int
    decay: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        _steps("until", self.until, 1)

    def __call__(self, step: int) -> float:
        if step >= self.until:
            return 0.0
        return self.p * (1.0 - step / self.until) if self.decay else self.p


@dataclass(frozen=True, slots=True)
class Late:
    """0 before step ``since``, then ``p``: late dropout, against overfitting (Liu et al. 2023)."""

    p: float
    since: int

    def __post_init__(self) -> None:
        probability(self.p)
        _steps("since", self.since, 0)

    def __call__(self, step: int) -> float:
        return self.p if step >= self.since else 0.0


@dataclass(frozen=True, slots=True)
class Curriculum:
    """p (1 - exp(-gamma step)): from 0 up to ``p`` (Morerio et al. 2017, theta(t) = (1 - theta)
    exp(-gamma t) + theta).

    ``gamma`` > 0; 10 / (number of steps) is their choice.
    """

    p: float
    gamma: float

    def __post_init__(self) -> None:
        probability(self.p)
        if real(self.gamma, "gamma") <= 0:
            raise InputError(
                f"gamma has to be above 0, but got {self.gamma}; 10 / (number of steps) is usual"
            )

    def __call__(self, step: int) -> float:
        return self.p * (1.0 - math.exp(-self.gamma * step))


@dataclass(frozen=True, slots=True)
class Annealed:
    """p (1 - step / steps), then 0: from much noise to none (Rennie et al. 2014)."""

    p: float
    steps: int

    def __post_init__(self) -> None:
        probability(self.p)
        _steps("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        return self.p * max(0.0, 1.0 - step / self.steps)


Schedule: TypeAlias = Linear | Cosine | Early | Late | Curriculum | Annealed
SCHEDULES = (Linear, Cosine, Early, Late, Curriculum, Annealed)
