"""Where a Keras model draws."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from .._errors import InputError
from . import traversal


@dataclass(frozen=True)
class Site:
    """A place where a model draws.

    ``name``: of the layer, with those around it, joined by "/"; ``layer``: its class. ``kind``:
    "dropout", "recurrent", "attention", "weights", "branch" (of a residual network) or "noise".
    ``argument``: what says how much, such as "rate" or "recurrent_dropout", and ``rate`` its value
    (None where the layer has none that can be read). ``ours``: is it a layer of this library?
    """

    name: str
    layer: str
    kind: str
    argument: str
    rate: float | None
    ours: bool


class Sites(tuple[Site, ...]):
    """All sites of a model, in the order of its layers. Printed, it is a table."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return "no randomness found"
        head = ("name", "layer", "kind", "argument", "rate")
        rows = [
            head,
            *(
                (s.name, s.layer, s.kind, s.argument, "" if s.rate is None else f"{s.rate:g}")
                for s in self
            ),
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def find(model: keras.Layer) -> Sites:
    """Every layer of ``model`` that draws: Keras's, ours and by their names those of other
    libraries, at any depth.

    Read from the layers, without a run: recurrent layers with ``dropout`` or ``recurrent_dropout``,
    attention with ``dropout``, noise layers. Random operations written into a ``call`` of one's own
    are not seen. Raises :class:`thinned.InputError` for what is no Keras layer.
    """
    check_model(model)
    own = [(model.name, model)] if traversal.sources(model) else []
    return Sites(
        Site(
            name,
            type(layer).__name__,
            s.kind,
            s.argument,
            s.rate,
            isinstance(layer, traversal.OURS),
        )
        for name, layer in [*own, *traversal.layers(model)]
        for s in traversal.sources(layer)
    )


def check_model(model: object) -> None:
    """Raise unless ``model`` is a Keras layer or model."""
    if not isinstance(model, keras.Layer):
        raise InputError(f"a Keras model or layer is needed, but got {type(model).__name__}")
