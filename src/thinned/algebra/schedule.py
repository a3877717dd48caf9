"""Rates that change with the optimizer step; a schedule can stand wherever a layer takes a rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

from .._errors import InputError, probability, real


def _check_steps(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(
            f"{name} has to be a whole number of steps of at least {least}, but got {value!r}"
        )


@final
@dataclass(frozen=True, slots=True)
class Linear:
    """Moves the rate in equal parts from ``start`` to ``end`` over ``steps`` steps, then keeps it.

    DropBlock uses it. As the rate of drop path it is ScheduledDropPath.

    Args:
        start: The rate at step 0, in [0, 1].
        end: The rate from step ``steps`` on, in [0, 1].
        steps: The length of the ramp in optimizer steps, at least 1.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> Linear(0.0, 0.3, 10_000)(5_000)
        0.15

    Reference:
        Zoph, Vasudevan, Shlens, Le 2018, "Learning transferable architectures for scalable image
        recognition" (ScheduledDropPath); Ghiasi, Lin, Le 2018, "DropBlock".
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        probability(self.start, "start")
        probability(self.end, "end")
        _check_steps("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@final
@dataclass(frozen=True, slots=True)
class Cosine:
    """Moves the rate along half a cosine from ``start`` to ``end``, then keeps it.

    Args:
        start: The rate at step 0, in [0, 1].
        end: The rate from step ``steps`` on, in [0, 1].
        steps: The length of the ramp in optimizer steps, at least 1.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> ramp = Cosine(0.0, 0.4, 1_000)
        >>> round(ramp(0), 6), round(ramp(500), 6), round(ramp(1_000), 6)
        (0.0, 0.2, 0.4)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        Linear(self.start, self.end, self.steps)  # the same rules

    def __call__(self, step: int) -> float:
        return self.end + (self.start - self.end) * 0.5 * (
            1.0 + math.cos(math.pi * min(step / self.steps, 1.0))
        )


@final
@dataclass(frozen=True, slots=True)
class Early:
    """Early dropout, against underfitting: the rate is ``p`` before step ``until``, then 0.

    Args:
        p: The rate of the first steps, in [0, 1].
        until: The first optimizer step without dropout, at least 1.
        decay: Whether the rate goes down linearly from ``p`` to 0 instead of at once.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> Early(0.1, until=5_000)(4_999), Early(0.1, until=5_000)(5_000)
        (0.1, 0.0)

    Reference:
        Liu, Xu, Jin, Shen, Darrell 2023, "Dropout reduces underfitting".
    """

    p: float
    until: int
    decay: bool = False

    def __post_init__(self) -> None:
        probability(self.p)
        _check_steps("until", self.until, 1)

    def __call__(self, step: int) -> float:
        if step >= self.until:
            return 0.0
        return self.p * (1.0 - step / self.until) if self.decay else self.p


@final
@dataclass(frozen=True, slots=True)
class Late:
    """Late dropout, against overfitting: the rate is 0 before step ``since``, then ``p``.

    Args:
        p: The rate of the later steps, in [0, 1].
        since: The first optimizer step with dropout, at least 0.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> Late(0.4, since=5_000)(4_999), Late(0.4, since=5_000)(5_000)
        (0.0, 0.4)

    Reference:
        Liu, Xu, Jin, Shen, Darrell 2023, "Dropout reduces underfitting".
    """

    p: float
    since: int

    def __post_init__(self) -> None:
        probability(self.p)
        _check_steps("since", self.since, 0)

    def __call__(self, step: int) -> float:
        return self.p if step >= self.since else 0.0


@final
@dataclass(frozen=True, slots=True)
class Curriculum:
    """Curriculum dropout: the rate grows from 0 up to ``p`` as p (1 - exp(-gamma step)).

    Args:
        p: The rate that is approached, in [0, 1].
        gamma: The speed per optimizer step, above 0; the authors use 10 / (number of steps).

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> round(Curriculum(0.5, gamma=0.001)(1_000), 3)
        0.316

    Reference:
        Morerio, Cavazza, Volpi, Vidal, Murino 2017, "Curriculum dropout". Their theta(t) =
        (1 - theta) exp(-gamma t) + theta is the probability of keeping.
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


@final
@dataclass(frozen=True, slots=True)
class Annealed:
    """Annealed dropout: the rate goes down linearly from ``p`` to 0 over ``steps`` steps.

    Args:
        p: The rate at step 0, in [0, 1].
        steps: The first optimizer step without dropout, at least 1.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> Annealed(0.5, 10_000)(5_000)
        0.25

    Reference:
        Rennie, Goel, Thomas 2014, "Annealed dropout training of deep networks".
    """

    p: float
    steps: int

    def __post_init__(self) -> None:
        probability(self.p)
        _check_steps("steps", self.steps, 1)

    def __call__(self, step: int) -> float:
        return self.p * max(0.0, 1.0 - step / self.steps)


Schedule: TypeAlias = Linear | Cosine | Early | Late | Curriculum | Annealed
SCHEDULES = (Linear, Cosine, Early, Late, Curriculum, Annealed)
