"""Layers whose call is another for a while: switched on alone, or watched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

Around = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def wrapped(
    layers: Iterable[keras.Layer], around: Callable[[keras.Layer], Around]
) -> Iterator[None]:
    """Each layer's ``call`` is ``around(layer)`` of it within the block."""
    changed: list[keras.Layer] = []
    try:
        for layer in layers:
            object.__setattr__(layer, "call", around(layer)(layer.call))
            changed.append(layer)
        yield
    finally:
        for layer in changed:
            object.__delattr__(layer, "call")


def training(layer: keras.Layer) -> Around:
    """The call with ``training=True``, whatever it is told."""

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: call(*args, **{**kwargs, "training": True})

    return around
