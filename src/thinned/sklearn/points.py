"""From an estimator's ``dropout`` to points, and their draws for many networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .. import presets
from .._errors import InputError
from ..algebra.drop import Drop
from ..algebra.key import Key, stream_of
from ..algebra.plan import plan
from ..functional import drop

Points: TypeAlias = tuple[Drop | None, ...]  # of the input, then of each hidden layer; None: nothing falls
_LAYOUTS = {("b *", "b *"), ("*", "b *"), ("b", "b *"), ("b c", "b c *")}  # of rows [b, units]; a unit is a channel of one cell


def points(dropout: Any, input_dropout: Any, hidden: int) -> Points:
    """The points of an estimator with ``hidden`` hidden layers; :class:`thinned.InputError` where they make no sense."""
    if isinstance(dropout, (list, tuple, np.ndarray)):
        if len(dropout) != hidden:
            raise InputError(
                f"dropout has to be one value, or one for each of the {hidden} hidden layers, but got {len(dropout)} values"
            )
        each = list(dropout)
    else:
        each = [dropout] * hidden
    return (_point(input_dropout, "input_dropout"), *(_point(value, "dropout") for value in each))


def _point(value: Any, name: str) -> Drop | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = presets.make(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        value = presets.dropout(float(value))
    if not isinstance(value, Drop):
        raise InputError(f"{name} has to be a rate, the name of a point, or a point, but got {value!r}")
    if (value.per, value.of) not in _LAYOUTS:
        raise InputError(
            f"{name} has to have coins for the units of a batch of rows, but {value.name or value!r} has per "
            f"{value.per!r} of {value.of!r}; the points for rows are {', '.join(map(repr, _named()))}"
        )
    return value if value.rate else None


def _named() -> list[str]:
    """The catalogue's points that go into a perceptron."""
    made = {name: presets.make(name) for name, row in presets.CATALOG.items() if not isinstance(row.fn, str)}
    return [name for name, point in made.items() if (point.per, point.of) in _LAYOUTS]


def factors(
    each: Sequence[Drop | None], keys: Sequence[Key], rows: int, width: int, before: Sequence[int] = ()
) -> tuple[Tensor, Tensor | None] | None:
    """The maps a x + b at one place of m networks: a and b, each [m, rows, width]; b is None where it is 0 everywhere.

    Networks with one point and one key share a draw; ``before`` says for each which network has the same key first.
    """
    if not any(each):
        return None
    a = torch.ones(len(each), rows, width)
    shifts = any(_shifts(point) for point in each)
    b = torch.zeros_like(a) if shifts else None
    first: dict[tuple[Drop, int], int] = {}
    for m, point in enumerate(each):
        if point is None:
            continue
        same = first.setdefault((point, before[m] if before else m), m)
        if same != m:
            a[m] = a[same]
            if b is not None:
                b[m] = b[same]
            continue
        _draw(a[m], point, keys[m])
        if b is not None and _shifts(point):
            _draw(b[m], point, keys[m])
            a[m] -= b[m]
    return a, b


def _draw(x: Tensor, point: Drop, key: Key) -> None:
    """``point`` at equal rows [b, units], in place; rows of different steps are of different batches."""
    if point.per != "*":
        drop(x, point, key=key, inplace=True)
        return
    steps, batch = torch.unique(torch.as_tensor(key.step).expand(len(x)), return_inverse=True)
    x.copy_(_batches(x[:1].repeat(len(steps), 1), point, key, steps)[batch])


def _batches(x: Tensor, point: Drop, key: Key, steps: Tensor) -> Tensor:
    """``point`` at equal rows [batches, units], one for each batch, in place: a coin that all rows share is sample 0's."""
    return drop(x, replace(point, per="b *"), key=replace(key, step=steps, samples=torch.zeros_like(steps)), inplace=True)


def by_batch(point: Drop | None) -> bool:
    """Do all rows of a batch share its coins, and does what falls become 0?"""
    return point is not None and point.per == "*" and not _shifts(point)


def factors_by_batch(point: Drop, key: Key, steps: Tensor, width: int) -> Tensor:
    """What a point of :func:`by_batch` multiplies units by: [steps, width], as :func:`factors` has it at each row."""
    return _batches(torch.ones(len(steps), width), point, key, steps)


def signed(each: Sequence[Drop | None]) -> bool:
    """May a factor be below 0?"""
    return any(point is not None and plan(point, (1, 1)).law != "bernoulli" for point in each)


def _shifts(point: Drop | None) -> bool:
    if point is None:
        return False
    planned = plan(point, (1, 1))
    return planned.shift != 0.0 or planned.dropped != 0.0


def stream(place: int, monte_carlo: bool = False) -> int:
    """The stream of a place's masks: 0 is the input, i the hidden layer i."""
    return stream_of(f"{'mc.' if monte_carlo else ''}drop{place}")
