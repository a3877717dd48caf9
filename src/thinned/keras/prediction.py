"""Monte Carlo dropout: many thinned networks, with batch normalisation left in inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import keras

from .._errors import InputError
from . import arguments, calls, traversal
from .sites import check_model

Array = NDArray[np.float64]
Outputs = Literal["auto", "probabilities", "logits", "binary", "values"]


@dataclass(frozen=True)
class Prediction:
    """What many thinned networks say, float64.

    ``mean`` and ``std`` (with the divisor n - 1) have the shape of the model's output; of logits,
    those of the probabilities. ``entropy``: of the mean probabilities, in nats, [b, ...].
    ``mutual_information``: ``entropy`` less the mean of each network's own, what the networks
    disagree about. Both are None for values. ``samples``: all outputs, [samples, b, ...].
    """

    mean: Array
    std: Array
    entropy: Array | None
    mutual_information: Array | None
    samples: Array | None = None


def predict(
    model: keras.Model,
    x: Any,
    samples: int = 100,
    *,
    outputs: Outputs = "auto",
    batch_size: int = 32,
    keep: bool = False,
) -> Prediction:
    """Monte Carlo dropout, Gal and Ghahramani 2016: ``samples`` passes in which dropout draws and
    nothing else trains.

    Only the layers that :func:`find` shows as dropout, recurrent or attention run with
    ``training=True``; batch normalisation uses its running statistics and does not move, and noise
    layers such as GaussianNoise stay off. ``x``: what ``model.predict`` takes. ``outputs``: what
    the model's are along their last axis: "probabilities", "logits", "binary" (one probability, as
    of a sigmoid), or "values"; "auto" reads probabilities where two or more sum to 1 everywhere,
    else values. ``keep`` keeps all outputs.

    The model is compiled for this once and its own compiled prediction is put back. Raises
    :class:`thinned.InputError` where nothing draws, and for models with several outputs.
    """
    check_model(model)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"predict needs a keras.Model, but got the layer {type(model).__name__}; put it into a Sequential"
        )
    count = arguments.whole_of(samples, "samples", 2)
    arguments.whole_of(batch_size, "batch_size", 1)
    arguments.one_of(outputs, "outputs", ("auto", "probabilities", "logits", "binary", "values"))
    totals: _Totals | None = None
    with sampling(model):
        for _ in range(count):
            given = _outputs(model, x, batch_size)
            if not isinstance(given, np.ndarray):
                raise InputError(
                    f"predict needs a model of one output, but got {type(given).__name__}"
                )
            y = np.asarray(given, dtype=np.float64)
            totals = totals or _Totals(_kind(y) if outputs == "auto" else outputs, keep)
            totals.add(y)
    assert totals is not None
    return totals.result()


@contextmanager
def sampling(model: keras.Model) -> Iterator[None]:
    """Dropout draws in ``model.predict``, and nothing else trains."""
    drawing = [layer for _, layer in traversal.drawing(model)]
    if not any(
        s.rate is None or s.rate > 0
        for layer in drawing
        for s in traversal.sources(layer) or traversal.sources(layer.cell)
    ):
        raise InputError(
            "this model draws nothing, so all samples would be equal; thinned.keras.apply puts dropout in"
        )
    before = model.predict_function
    try:
        with calls.wrapped(drawing, calls.training):
            model.predict_function = None
            yield
    finally:
        model.predict_function = before


def _outputs(model: keras.Model, x: Any, batch_size: int) -> Any:
    """What ``model.predict`` gives; arrays go batch by batch, without the loop's overhead of a
    tenth of a second a call.
    """
    leaves = keras.tree.flatten(x)
    arrays = bool(leaves) and all(
        isinstance(a, np.ndarray) or keras.ops.is_tensor(a) for a in leaves
    )
    sizes = {a.shape[0] if a.shape else 0 for a in leaves} if arrays else set()
    if len(sizes) != 1 or 0 in sizes:
        return model.predict(x, batch_size=batch_size, verbose=0)
    parts = [
        model.predict_on_batch(keras.tree.map_structure(lambda a, i=i: a[i : i + batch_size], x))
        for i in range(0, sizes.pop(), batch_size)
    ]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0]


def _kind(y: Array) -> Outputs:
    sums = (
        y.ndim > 1
        and y.shape[-1] > 1
        and bool((y >= 0).all() and np.allclose(y.sum(-1), 1.0, atol=1e-2))
    )
    return "probabilities" if sums else "values"


class _Totals:
    """Welford's running mean and squares, and the sum of entropies."""

    def __init__(self, kind: Outputs, keep: bool) -> None:
        self.kind, self.n = kind, 0
        self.kept: list[Array] | None = [] if keep else None
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.entropies: Any = 0.0

    def add(self, y: Array) -> None:
        if self.kind == "logits":
            y = np.exp(y - y.max(-1, keepdims=True))
            y = y / y.sum(-1, keepdims=True)
        self.n += 1
        step = y - self.mean
        self.mean = self.mean + step / self.n
        self.squares = self.squares + step * (y - self.mean)
        if self.kind != "values":
            self.entropies = self.entropies + self._entropy(y)
        if self.kept is not None:
            self.kept.append(y)

    def _entropy(self, p: Array) -> Array:
        if self.kind == "binary":
            p = np.stack((p[..., 0], 1.0 - p[..., 0]), -1)
        safe = np.where(p > 0, p, 1.0)
        summed: Array = -(safe * np.log(safe)).sum(-1)
        return summed

    def result(self) -> Prediction:
        std = np.sqrt(self.squares / (self.n - 1))
        kept = None if self.kept is None else np.stack(self.kept)
        if self.kind == "values":
            return Prediction(self.mean, std, None, None, kept)
        entropy = self._entropy(self.mean)
        return Prediction(
            self.mean, std, entropy, np.maximum(entropy - self.entropies / self.n, 0.0), kept
        )
