"""From the ``dropout`` of an estimator to specs, and their draws for many networks."""

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
from ..algebra.schedule import SCHEDULES
from ..functional import drop
from .methods import METHODS, OWN, Method, method

Points: TypeAlias = tuple[
    Drop | Method | None, ...
]  # of the input, then of each hidden layer; None drops nothing
_LAYOUTS = {
    ("b *", "b *"),
    ("*", "b *"),
    ("b", "b *"),
    ("b c", "b c *"),
}  # of rows [b, units]; a unit is a channel of one element
_WEIGHTS = {"b o i", "o i", "o i *", "*"}  # layouts of a layer's weights


def specs(dropout: Any, input_dropout: Any, hidden: int) -> Points:
    """Return the specs of the input and of each of the ``hidden`` hidden layers.

    Raises :class:`thinned.InputError` where a method does not apply.
    """
    if isinstance(dropout, (list, tuple, np.ndarray)):
        if len(dropout) != hidden:
            raise InputError(
                f"dropout has to be one value, or one for each of the {hidden} hidden layers, "
                f"but got {len(dropout)} values"
            )
        each = list(dropout)
    else:
        each = [dropout] * hidden
    return (_point(input_dropout, "input_dropout"), *(_point(value, "dropout") for value in each))


def _point(value: Any, argument: str) -> Drop | Method | None:
    if value is None:
        return None
    if isinstance(value, SCHEDULES):
        return Method("dropout", {"p": value})
    if isinstance(value, Real) and not isinstance(value, bool):
        value = presets.dropout(float(value))
    if isinstance(value, Drop):
        if value.of in _WEIGHTS:
            return method("drop_connect", {"p": value}) if value.rate else None
        if (value.per, value.of) not in _LAYOUTS:
            raise _misplaced(
                argument, value.name or repr(value), f"draws per {value.per!r} of {value.of!r}"
            )
        return value if value.rate else None
    name, settings = _named(value, argument)
    if name in METHODS:
        made = method(name, settings)
        if argument == "input_dropout" and name in OWN:
            raise InputError(
                f"{name!r} needs the layer that gives the units, which an input has not; give it "
                f"as dropout"
            )
        return made
    if name == "monte_carlo":
        raise InputError(
            "'monte_carlo' is a way to predict, by many thinned networks; set samples or call "
            "predict_samples"
        )
    row = presets.CATALOG.get(name)
    if row is not None and row.place == "schedule":
        raise InputError(
            f"{name!r} is a schedule of a rate; give it with its settings in a rate's place, as "
            f"in {row.example}"
        )
    if row is not None and row.make is None:
        raise _misplaced(argument, name, f"is a method for another place ({row.place})")
    moving = {key: rate for key, rate in settings.items() if isinstance(rate, SCHEDULES)}
    spec = presets.make(name, **{**settings, **{key: rate(0) for key, rate in moving.items()}})
    checked = _point(spec, argument)  # None where the rate is 0, if only at first
    if moving and list(moving) != [presets.rate_name(name)]:
        raise InputError(
            f"a schedule stands in the place of the rate, but got it for {', '.join(moving)}"
        )
    return Method(name, settings) if moving else checked


def _named(value: Any, argument: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of a method."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("method"), str):
        return value["method"], {key: setting for key, setting in value.items() if key != "method"}
    raise InputError(
        f"{argument} has to be a rate, its schedule, the name of a method, a dict such as "
        f"{{'method': 'shakeout', 'c': 0.2}}, "
        f"or a thinned.Drop, but got {value!r}"
    )


def _misplaced(argument: str, name: str, why: str) -> InputError:
    return InputError(
        f"{argument} has to be for the units of a batch of rows or for the weights between them, "
        f"but {name!r} {why}; those for "
        f"rows are {', '.join(map(repr, for_rows()))}"
    )


def for_rows() -> list[str]:
    """Return the names of the methods that apply to a perceptron."""
    return [
        name
        for name, row in presets.CATALOG.items()
        if name in METHODS or (row.make is not None and _fits(name))
    ]


def _fits(name: str) -> bool:
    spec = presets.make(name)
    return (spec.per, spec.of) in _LAYOUTS


def factors(
    each: Sequence[Drop | None],
    keys: Sequence[Key],
    rows: int,
    width: int,
    before: Sequence[int] = (),
    memory: Tensor | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """Return the maps a x + b at one place of m networks: a and b, each [m, rows, width]; b is None
    where it is 0 everywhere.

    Networks with the same spec and key share a draw; ``before`` gives for each the first network
    with the same key. ``memory``: memory for a, [m, rows or more, width].
    """
    if not any(each):
        return None
    a = torch.ones(len(each), rows, width) if memory is None else memory[:, :rows].fill_(1.0)
    b = torch.zeros_like(a) if any(shifts(spec) for spec in each) else None
    first: dict[tuple[Drop, int], int] = {}
    for m, spec in enumerate(each):
        if spec is None:
            continue
        same = first.setdefault((spec, before[m] if before else m), m)
        if same != m:
            a[m] = a[same]
            if b is not None:
                b[m] = b[same]
            continue
        _draw(a[m], spec, keys[m])
        if b is not None and shifts(spec):
            _draw(b[m], spec, keys[m])
            a[m] -= b[m]
    return a, b


def _draw(x: Tensor, spec: Drop, key: Key) -> None:
    """Apply ``spec`` in place to equal rows [b, units]; rows of different steps are of different
    batches.
    """
    if spec.per != "*":
        drop(x, spec, key=key, inplace=True)
        return
    steps, batch = torch.unique(torch.as_tensor(key.step).expand(len(x)), return_inverse=True)
    x.copy_(_batches(x[:1].repeat(len(steps), 1), spec, key, steps)[batch])


def _batches(x: Tensor, spec: Drop, key: Key, steps: Tensor) -> Tensor:
    """Apply ``spec`` in place to equal rows [batches, units], one for each batch.

    A draw that all rows share is that of sample 0.
    """
    return drop(
        x,
        replace(spec, per="b *"),
        key=replace(key, step=steps, samples=torch.zeros_like(steps)),
        inplace=True,
    )


def by_batch(spec: Drop | None) -> bool:
    """Whether all rows of a batch share its mask and dropped units become 0."""
    return spec is not None and spec.per == "*" and not shifts(spec)


def factors_by_batch(spec: Drop, key: Key, steps: Tensor, width: int) -> Tensor:
    """Return the factors [steps, width] of a spec of :func:`by_batch`, as :func:`factors` has them
    for each row.
    """
    return _batches(torch.ones(len(steps), width), spec, key, steps)


def signed(each: Sequence[Drop | None]) -> bool:
    """Whether a factor may be below 0."""
    return any(spec is not None and plan(spec, (1, 1)).law != "bernoulli" for spec in each)


def shifts(spec: Drop | None) -> bool:
    """Whether a spec adds something, to all units or to dropped ones."""
    if spec is None:
        return False
    planned = plan(spec, (1, 1))
    return planned.shift != 0.0 or planned.dropped != 0.0


def stream(place: int, monte_carlo: bool = False) -> int:
    """Return the stream of the masks of a place: 0 is the input, i is hidden layer i."""
    return stream_of(f"{'mc.' if monte_carlo else ''}drop{place}")
