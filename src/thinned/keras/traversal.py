"""Every layer of a model by name, which of them draw, and what they are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from .layers.adaptive import Jumpout, Standout
from .layers.base import Noisy
from .layers.cutting import Cutout
from .layers.learned import ConcreteDropout
from .layers.recurrent import ZoneoutCell
from .layers.residual import ShakeShake
from .layers.states import DropStateCell
from .layers.tokens import PatchDropout
from .layers.variational import InformationDropout, VariationalDropout

DROPS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.AlphaDropout,
)
_NAMED = re.compile(r"Drop|Zoneout|StochasticDepth")  # layers of other libraries


class Source(NamedTuple):
    """What draws in a layer: its ``kind``, the ``argument`` that says how much, and its ``rate``
    (None where it has none).
    """

    kind: str
    argument: str
    rate: float | None


_RATELESS: dict[type, Source] = {
    ShakeShake: Source("branch", "backward", None),
    Standout: Source("dropout", "alpha", None),
    Jumpout: Source("dropout", "sigma", None),
    InformationDropout: Source("dropout", "max_alpha", None),
    Cutout: Source("noise", "size", None),  # as GaussianNoise: a change of the data, off in predict
}
OURS: tuple[Any, ...] = (Noisy, ConcreteDropout, VariationalDropout, PatchDropout, *_RATELESS)


def layers(model: keras.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """(name, layer) of every layer inside, in order, names joined by "/"; a layer that stands in
    two places once.
    """
    seen: set[int] = set()

    def inside(parent: keras.Layer, prefix: str) -> Iterator[tuple[str, keras.Layer]]:
        for child in parent._flatten_layers(include_self=False, recursive=False):
            if id(child) not in seen:
                seen.add(id(child))
                name = f"{prefix}{child.name}"
                yield name, child
                yield from inside(child, f"{name}/")

    return inside(model, prefix)


def sources(layer: Any) -> list[Source]:
    """What draws in this layer itself, its parts left aside."""
    if isinstance(layer, Noisy):
        rates = {name: float(getattr(layer, name)) for name in ("rate", *layer.others)}
        return [
            Source(layer.kind, name, rate) for name, rate in rates.items() if rate or name == "rate"
        ]
    for ours, source in _RATELESS.items():
        if isinstance(layer, ours):
            return [source]
    if isinstance(layer, OURS):
        return [Source("dropout", "rate", float(layer.rate))]
    if isinstance(layer, (ZoneoutCell, DropStateCell)):
        return []  # its layer says it
    if hasattr(layer, "recurrent_dropout"):
        if hasattr(layer, "cell"):
            return []  # its cell says it
        both = (("dropout", layer.dropout), ("recurrent_dropout", layer.recurrent_dropout))
        return [Source("recurrent", argument, float(rate)) for argument, rate in both if rate]
    if isinstance(layer, keras.layers.GaussianNoise):
        return [Source("noise", "stddev", float(layer.stddev))]
    if isinstance(layer, keras.layers.Attention):
        return [Source("attention", "dropout", float(layer.dropout))] if layer.dropout else []
    if isinstance(layer, DROPS) or _NAMED.search(type(layer).__name__):
        rate = getattr(layer, "rate", None)
        return [Source("dropout", "rate", float(rate) if isinstance(rate, (int, float)) else None)]
    return []


def drawing(model: keras.Layer) -> list[tuple[str, keras.Layer]]:
    """The layers to switch on for Monte Carlo dropout: those that draw, and the recurrent layers
    around such cells.
    """
    every = [("", model), *layers(model)] if sources(model) else list(layers(model))
    own = [(name, layer) for name, layer in every if any(s.kind != "noise" for s in sources(layer))]
    around = [
        (name, layer)
        for name, layer in every
        if getattr(layer, "cell", None) is not None and not sources(layer)
    ]
    return own + [
        (n, layer)
        for n, layer in around
        if hasattr(layer, "recurrent_dropout") and sources(layer.cell)
    ]
