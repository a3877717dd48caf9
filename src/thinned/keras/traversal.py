"""Every layer of a model by name, which of them draw, and at which rates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from .layers.activations import Jumpout, Standout
from .layers.base import RatedLayer
from .layers.branches import ShakeShake
from .layers.learned import ConcreteDropout, InformationDropout, VariationalDropout
from .layers.maps import Cutout
from .layers.recurrent import DropStateCell
from .layers.tokens import PatchDropout
from .layers.zoneout import ZoneoutCell

KERAS_DROPOUT = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
)
_FOREIGN_NAMES = re.compile(r"Drop|Zoneout|StochasticDepth")  # classes of other libraries


class Source(NamedTuple):
    """A source of noise in a layer.

    ``kind`` as in :class:`thinned.keras.Site`; ``argument`` holds the rate; ``rate`` is None where
    there is none.
    """

    kind: str
    argument: str
    rate: float | None


_WITHOUT_RATE: dict[type, Source] = {
    ShakeShake: Source("branch", "backward", None),
    Standout: Source("dropout", "alpha", None),
    Jumpout: Source("dropout", "sigma", None),
    InformationDropout: Source("dropout", "max_alpha", None),
    # as GaussianNoise: a change of the data, off in predict
    Cutout: Source("noise", "size", None),
}
OURS: tuple[Any, ...] = (
    RatedLayer,
    ConcreteDropout,
    VariationalDropout,
    PatchDropout,
    *_WITHOUT_RATE,
)


def layers(model: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """(name, layer) of every layer inside ``model``, in order, with names joined by "/".

    A layer that is used in two places comes once.
    """
    visited: set[int] = set()

    def inside(parent: keras.Layer, prefix: str) -> Iterator[tuple[str, keras.Layer]]:
        for child in parent._flatten_layers(include_self=False, recursive=False):
            if id(child) not in visited:
                visited.add(id(child))
                name = f"{prefix}{child.name}"
                yield name, child
                yield from inside(child, f"{name}/")

    return inside(model, "")


def sources(layer: Any) -> list[Source]:
    """The sources of noise in the layer itself, without those of its parts."""
    if isinstance(layer, RatedLayer):
        rates = {name: float(getattr(layer, name)) for name in ("rate", *layer.other_rates)}
        return [
            Source(layer.kind, name, rate) for name, rate in rates.items() if rate or name == "rate"
        ]
    for kind, source in _WITHOUT_RATE.items():
        if isinstance(layer, kind):
            return [source]
    if isinstance(layer, OURS):
        return [Source("dropout", "rate", float(layer.rate))]
    if isinstance(layer, (ZoneoutCell, DropStateCell)):
        return []  # the layer around it reports the rates
    if hasattr(layer, "recurrent_dropout"):
        if hasattr(layer, "cell"):
            return []  # its cell reports the rates
        both = (("dropout", layer.dropout), ("recurrent_dropout", layer.recurrent_dropout))
        return [Source("recurrent", argument, float(rate)) for argument, rate in both if rate]
    if isinstance(layer, keras.layers.GaussianNoise):
        return [Source("noise", "stddev", float(layer.stddev))]
    if isinstance(layer, keras.layers.Attention):
        return [Source("attention", "dropout", float(layer.dropout))] if layer.dropout else []
    if isinstance(layer, KERAS_DROPOUT) or _FOREIGN_NAMES.search(type(layer).__name__):
        rate = getattr(layer, "rate", None)
        return [Source("dropout", "rate", float(rate) if isinstance(rate, (int, float)) else None)]
    return []


def drawing_layers(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """The layers to switch on for Monte Carlo dropout: those that draw, and the recurrent layers
    around cells that draw.
    """
    every = [("", model), *layers(model)] if sources(model) else list(layers(model))
    own = [(name, layer) for name, layer in every if any(s.kind != "noise" for s in sources(layer))]
    recurrent = [
        (name, layer)
        for name, layer in every
        if getattr(layer, "cell", None) is not None and not sources(layer)
    ]
    return own + [
        (name, layer)
        for name, layer in recurrent
        if hasattr(layer, "recurrent_dropout") and sources(layer.cell)
    ]
