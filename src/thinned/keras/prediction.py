"""Monte Carlo dropout: many passes with dropout on and batch normalization in inference."""

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


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What :func:`predict` returns: statistics over the passes, as float64 arrays.

    Args:
        mean: The mean over the passes, in the shape of the output of the model; for logits, of the
            probabilities.
        std: The standard deviation over the passes, with the divisor n - 1, in the same shape.
        entropy: The entropy of the mean probabilities, in nats, [b, ...]; None for values.
        mutual_information: ``entropy`` minus the mean entropy of the single passes, in nats: how
            much the passes disagree. None for values.
        samples: The outputs of all passes, [samples, b, ...]; None without ``keep``.

    Example:
        >>> import numpy as np
        >>> Prediction(mean=np.ones(3), std=np.zeros(3)).std.tolist()
        [0.0, 0.0, 0.0]
    """

    mean: Array
    std: Array
    entropy: Array | None = None
    mutual_information: Array | None = None
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
    """Monte Carlo dropout: run ``samples`` passes in which only dropout is in training mode.

    The layers that :func:`find` reports as dropout, recurrent, attention, weights or branch run
    with ``training=True``; batch normalization uses its running statistics and does not update
    them, and noise layers such as GaussianNoise are off. The model is compiled for this once, and
    its own compiled prediction is restored.

    Args:
        model: A model with one output.
        x: What ``model.predict`` takes.
        samples: The number of passes, at least 2.
        outputs: What the outputs are along their last axis: "probabilities", "logits", "binary"
            (one probability, as of a sigmoid) or "values". "auto" takes probabilities where two or
            more numbers sum to 1 everywhere, and values otherwise.
        batch_size: The number of examples in each call of the model, at least 1.
        keep: Whether to return the outputs of all passes.

    Returns:
        The mean and the spread of the outputs, and for probabilities their entropies.

    Raises:
        InputError: Where nothing draws, for models with several outputs, and where an argument
            breaks a rule.

    Example:
        >>> import numpy as np
        >>> from thinned.keras import layers
        >>> model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5)])
        >>> predict(model, np.ones((8, 4)), samples=10).mean.shape
        (8, 4)

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian approximation: representing model
        uncertainty in deep learning".
    """
    check_model(model)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"predict needs a keras.Model, but got the layer {type(model).__name__}; put it into a "
            "Sequential"
        )
    count = arguments.whole_of(samples, "samples", 2)
    arguments.whole_of(batch_size, "batch_size", 1)
    arguments.one_of(outputs, "outputs", ("auto", "probabilities", "logits", "binary", "values"))
    totals: _Totals | None = None
    with sampling(model):
        for _ in range(count):
            result = _outputs(model, x, batch_size)
            if not isinstance(result, np.ndarray):
                raise InputError(
                    f"predict needs a model of one output, but got {type(result).__name__}"
                )
            y = np.asarray(result, dtype=np.float64)
            totals = totals or _Totals(_detected_kind(y) if outputs == "auto" else outputs, keep)
            totals.add(y)
    assert totals is not None
    return totals.result()


@contextmanager
def sampling(model: keras.Model) -> Iterator[None]:
    """Within the block dropout draws in ``model.predict``, and nothing else is in training mode.

    Args:
        model: A Keras model.

    Yields:
        None.

    Raises:
        InputError: Where the model draws nothing.

    Example:
        >>> import numpy as np
        >>> from thinned.keras import layers
        >>> model = keras.Sequential([keras.Input((50,)), layers.Dropout(0.5)])
        >>> with sampling(model):
        ...     y = model.predict(np.ones((1, 50)), verbose=0)
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]
    """
    drawing = [layer for _, layer in traversal.drawing_layers(model)]
    if not any(
        s.rate is None or s.rate > 0
        for layer in drawing
        for s in traversal.sources(layer) or traversal.sources(layer.cell)
    ):
        raise InputError(
            "this model draws nothing, so all samples would be equal; add dropout with "
            "thinned.keras.apply"
        )
    before = model.predict_function
    try:
        with calls.replaced_calls(drawing, calls.force_training):
            model.predict_function = None  # so that Keras compiles the changed calls
            yield
    finally:
        model.predict_function = before


def _outputs(model: keras.Model, x: Any, batch_size: int) -> Any:
    """The result of ``model.predict``.

    Arrays are passed batch by batch, which avoids the overhead of Keras's loop, about 0.1 s a call.
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


def _detected_kind(y: Array) -> Outputs:
    sums_to_one = (
        y.ndim > 1
        and y.shape[-1] > 1
        and bool((y >= 0).all() and np.allclose(y.sum(-1), 1.0, atol=1e-2))
    )
    return "probabilities" if sums_to_one else "values"


class _Totals:
    """Welford's running mean and squares, and the sum of entropies."""

    def __init__(self, kind: Outputs, keep: bool) -> None:
        self.kind, self.n = kind, 0
        self.outputs: list[Array] | None = [] if keep else None
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
        if self.outputs is not None:
            self.outputs.append(y)

    def _entropy(self, p: Array) -> Array:
        if self.kind == "binary":
            p = np.stack((p[..., 0], 1.0 - p[..., 0]), -1)
        safe = np.where(p > 0, p, 1.0)
        summed: Array = -(safe * np.log(safe)).sum(-1)
        return summed

    def result(self) -> Prediction:
        std = np.sqrt(self.squares / (self.n - 1))
        samples = None if self.outputs is None else np.stack(self.outputs)
        if self.kind == "values":
            return Prediction(mean=self.mean, std=std, samples=samples)
        entropy = self._entropy(self.mean)
        return Prediction(
            mean=self.mean,
            std=std,
            entropy=entropy,
            mutual_information=np.maximum(entropy - self.entropies / self.n, 0.0),
            samples=samples,
        )
