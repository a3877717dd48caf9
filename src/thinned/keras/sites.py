"""Where a Keras model draws."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from .._errors import InputError
from . import traversal


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place where a model draws random numbers, as :func:`find` returns it.

    Args:
        name: The name of the layer, after those of the models and layers around it, joined by "/".
        layer: The name of the class of the layer.
        kind: "dropout", "recurrent", "attention", "weights", "branch" (of a residual network) or
            "noise".
        argument: The argument that holds the rate, such as "rate" or "recurrent_dropout".
        rate: Its value; None where the layer has none that can be read.
        ours: Whether the layer is one of this library.

    Example:
        >>> from thinned.keras import layers
        >>> find(layers.Dropout(0.5, name="drop"))[0].rate
        0.5
    """

    name: str
    layer: str
    kind: str
    argument: str
    rate: float | None
    ours: bool


class Sites(tuple[Site, ...]):
    """All the sites of a model, as :func:`find` returns them; it prints as a table.

    Args:
        iterable: The sites, in the order of the layers.

    Example:
        >>> print(find(keras.layers.Dense(2)))
        no randomness found
    """

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
    """Find every layer of a model that draws random numbers.

    It finds the layers of Keras, of this library and, by their names, of other libraries, at any
    depth: dropout and noise layers, recurrent layers with ``dropout`` or ``recurrent_dropout``,
    attention with ``dropout``. The layers are read and not run, so random operations in a ``call``
    of your own are not found.

    Args:
        model: A Keras model or layer.

    Returns:
        The sites, in the order of the layers; printed, they are a table.

    Raises:
        InputError: Where ``model`` is no Keras layer.

    Example:
        >>> from thinned.keras import layers
        >>> model = keras.Sequential([keras.layers.Dense(4), layers.Dropout(0.5, name="drop")])
        >>> print(find(model))
        name  layer    kind     argument  rate
        drop  Dropout  dropout  rate      0.5
    """
    check_model(model)
    own = [(model.name, model)] if traversal.sources(model) else []
    return Sites(
        Site(
            name=name,
            layer=type(layer).__name__,
            kind=source.kind,
            argument=source.argument,
            rate=source.rate,
            ours=isinstance(layer, traversal.OURS),
        )
        for name, layer in [*own, *traversal.layers(model)]
        for source in traversal.sources(layer)
    )


def check_model(model: object) -> None:
    """Raise unless ``model`` is a Keras layer or model."""
    if not isinstance(model, keras.Layer):
        raise InputError(f"a Keras model or layer is needed, but got {type(model).__name__}")
