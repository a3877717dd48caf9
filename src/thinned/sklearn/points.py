"""From an estimator's ``dropout`` to points, and their draws for many networks."""

from __future__ import annotations

from collections.abc import Sequence
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
_LAYOUT = "b *"


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
    if value.per != _LAYOUT or value.of != _LAYOUT:
        raise InputError(
            f"{name} has to have a coin for each unit and example (per 'b *' of 'b *'), but {value.name or value!r} has per "
            f"{value.per!r} of {value.of!r}; 'dropout', 'gaussian', 'uout' and 'alpha' are such points"
        )
    return value if value.rate else None


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
        drop(a[m], point, key=keys[m], inplace=True)
        if b is not None and _shifts(point):
            drop(b[m], point, key=keys[m], inplace=True)
            a[m] -= b[m]
    return a, b


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
