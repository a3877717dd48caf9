"""Set the rates of a model in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from .._errors import InputError, nearest
from ..algebra.schedule import SCHEDULES
from . import arguments, traversal
from .layers.base import RatedLayer
from .sites import check_model
from .surgery import Where, matches

_BELOW_ONE = (keras.layers.GaussianDropout, keras.layers.AlphaDropout)  # they divide by 1 - rate
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@dataclass(frozen=True, kw_only=True)
class RateChange:
    """One rate that :func:`set_rate` changed.

    Args:
        name: The name of the layer, as in :class:`thinned.keras.Site`.
        argument: The argument that holds the rate.
        old: The rate before.
        new: The rate now.
        layer: The layer.

    Example:
        >>> layer = keras.layers.Dropout(0.1)
        >>> print(RateChange(name="drop", argument="rate", old=0.5, new=0.1, layer=layer))
        drop.rate: 0.5 -> 0.1
    """

    name: str
    argument: str
    old: float
    new: float
    layer: keras.Layer = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}.{self.argument}: {self.old:g} -> {self.new:g}"


class RateChanges(tuple[RateChange, ...]):
    """The changes of :func:`set_rate`; printed, one line for each.

    Args:
        iterable: The changes, in the order of the layers.

    Example:
        >>> RateChanges()
        nothing changed
    """

    model: keras.Layer

    def undo(self) -> None:
        """Set the old rates again."""
        _assign(self.model, [(c.layer, c.argument, c.old) for c in self])

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing changed"


def set_rate(
    model: keras.Layer,
    rate: float | Callable[[str, keras.Layer], float | None],
    where: Where = None,
) -> RateChanges:
    """Set the rates of the dropout layers of a model, in place.

    Layers of Keras, of this library and of other libraries count, at any depth and in subclassed
    models: every rate that :func:`thinned.keras.find` lists, except those of noise and learned
    ones. Everything is checked before the first change. Keras's own layers hold their rates as
    constants of compiled steps, so the compiled functions of ``model`` are made again; pass the
    model that is trained, and not a part of it. A file of a model with a constructor of its own has
    the rates that the constructor sets: set them again after loading.

    Args:
        model: A Keras model or layer.
        rate: The probability of dropping, in [0, 1], or a function of the name and the layer that
            returns the rate, or None to leave that layer as it is.
        where: The layers to set: a class; a name, or the end of one after "/", or otherwise a
            regular expression; a function of name and layer. None sets all that drop now: with one
            number for all, rates of 0 are left as they are.

    Returns:
        The changes; ``undo()`` sets the old rates again.

    Raises:
        InputError: Where a rate is outside [0, 1], ``where`` selects no layer with a rate, a layer
            of Keras was made without dropout and cannot draw, or ``rate`` is a schedule.

    Example:
        >>> from thinned.keras import layers
        >>> drop = layers.Dropout(0.5, name="drop")
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), drop])
        >>> set_rate(model, 0.1)
        drop.rate: 0.5 -> 0.1
    """
    check_model(model)
    if isinstance(rate, SCHEDULES):
        rule = "Expected a number; a schedule goes to thinned.keras.ScheduleCallback."
        raise arguments.invalid("rate", rule, rate)
    if not callable(rate):
        rate = arguments.rate_of(rate)
    changes = []
    for name, layer, argument in _targets(model, where):
        old = float(getattr(layer, argument))
        wanted = rate(name, layer) if callable(rate) else rate
        if wanted is None or (where is None and not callable(rate) and old == 0):
            continue
        below_one = isinstance(layer, _BELOW_ONE) or getattr(layer, "below_one", False)
        new = arguments.rate_of(
            wanted, f"rate of {name}", below_one=below_one and argument == "rate"
        )
        if new > 0 and not _draws(layer):
            raise InputError(
                f"{name} ({type(layer).__name__}) was made with {argument}=0 and has no generator "
                "to draw with; make it with a rate above 0, or add dropout by thinned.keras.apply"
            )
        if new != old:
            changes.append(RateChange(name=name, argument=argument, old=old, new=new, layer=layer))
    done = RateChanges(changes)
    done.model = model
    _assign(model, [(c.layer, c.argument, c.new) for c in done])
    return done


def _targets(model: keras.Layer, where: Where) -> list[tuple[str, Any, str]]:
    """(name, layer, argument) of the rates that ``where`` selects."""
    own = [(model.name, model)] if traversal.sources(model) else []
    rated = [
        (name, layer, source.argument)
        for name, layer in [*own, *traversal.layers(model)]
        for source in _rated(layer)
    ]
    if where is None:
        found = rated
    else:
        found = [
            t
            for t in rated
            if isinstance(where, str) and (t[0] == where or t[0].endswith(f"/{where}"))
        ] or [t for t in rated if matches(where, t[0], t[1])]
    if not found:
        names = [name for name, _, _ in rated]
        hint = (
            nearest(where, names) if isinstance(where, str) and names else f"rates are at {names}"
        )
        raise InputError(f"where={where!r} selects no layer with a rate; {hint}")
    return found


def _rated(layer: Any) -> list[traversal.Source]:
    if isinstance(layer, traversal.OURS) and not isinstance(layer, RatedLayer):
        return []  # learned, or without a rate
    return [s for s in traversal.sources(layer) if s.kind != "noise" and s.rate is not None]


def _draws(layer: Any) -> bool:
    """Whether a layer of Keras made its generator, which it does at rates above 0 alone."""
    keras_own = isinstance(layer, (*traversal.KERAS_DROPOUT, keras.layers.Attention))
    return not keras_own or getattr(layer, "seed_generator", None) is not None


def _assign(model: keras.Layer, rates: list[tuple[Any, str, float]]) -> None:
    every = [model, *(layer for _, layer in traversal.layers(model))]
    around = {id(a._dropout_layer): a for a in every if isinstance(a, _ATTENTION) and a.built}
    sync = getattr(model, "jax_state_sync", None)
    if rates and sync is not None:
        sync()  # JAX keeps the state of a running epoch apart from the variables
    for layer, argument, rate in rates:
        setattr(layer, argument, rate)
        attention = around.get(id(layer))
        if attention is not None:  # it reads and saves a copy of the rate
            own = "_dropout" if hasattr(attention, "_dropout") else "dropout"
            setattr(attention, own, rate)
    if any(not isinstance(layer, RatedLayer) for layer, _, _ in rates):
        for part in every:
            if isinstance(part, keras.Model):
                for step in ("train", "test", "predict"):
                    if getattr(part, f"{step}_function", None) is not None:
                        getattr(part, f"make_{step}_function")(force=True)
