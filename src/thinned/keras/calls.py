"""Replace the ``call`` of layers for a while, to switch single layers to training or to observe
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

CallWrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def replaced_calls(
    layers: Iterable[keras.Layer], wrapper_of: Callable[[keras.Layer], CallWrapper]
) -> Iterator[None]:
    """Within the block the ``call`` of each layer is ``wrapper_of(layer)(layer.call)``."""
    changed: list[keras.Layer] = []
    try:
        for layer in layers:
            object.__setattr__(layer, "call", wrapper_of(layer)(layer.call))
            changed.append(layer)
        yield
    finally:
        for layer in changed:
            object.__delattr__(layer, "call")


def force_training(layer: keras.Layer) -> CallWrapper:
    """Run the call with ``training=True``, whatever the caller passes."""

    def wrapper(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: call(*args, **{**kwargs, "training": True})

    return wrapper
