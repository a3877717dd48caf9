"""Monte Carlo dropout: many passes with dropout on and batch normalization in inference."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np

# Keras has no public way to read what predict takes
from keras.src.trainers import data_adapters

import keras

from .._errors import InputError
from .._prediction import Array, Prediction
from . import arguments, calls, traversal
from .sites import check_model

Outputs = Literal["auto", "probabilities", "logits", "binary", "values"]
KINDS: tuple[str, ...] = get_args(Outputs)


def predict(
    model: keras.Model,
    x: Any,
    samples: int = 100,
    *,
    outputs: Outputs = "auto",
    batch_size: int = 32,
    steps: int | None = None,
    keep: bool = False,
) -> Any:
    """Monte Carlo dropout: run ``samples`` passes in which only dropout is in training mode.

    The layers that :func:`find` reports as dropout, recurrent, attention, weights or branch run
    with ``training=True``; batch normalization uses its running statistics and does not update
    them, and noise layers such as GaussianNoise are off. The model is compiled for this once, and
    its own compiled prediction is restored.

    The data is read once, and all passes of a batch are run before the next batch is read, so
    generators and loaders that shuffle are right: the rows of the result are in the order in which
    the data came. What a pass changes in the model, such as the states of a stateful recurrent
    layer, is kept apart for each pass, from batch to batch, and is put back at the end.

    Args:
        model: A model with one or several outputs.
        x: What ``model.predict`` takes: arrays, a dataset, a loader or a generator.
        samples: The number of passes, at least 2.
        outputs: What the outputs are along their last axis: "probabilities", "logits", "binary"
            (one probability, as of a sigmoid) or "values". "auto" takes probabilities where two or
            more numbers sum to 1 everywhere, and values otherwise. For several outputs, one of
            these for all, or one for each, in the structure of the outputs of the model.
        batch_size: The number of examples in each call of the model, at least 1; datasets, loaders
            and generators have their own batches.
        steps: The number of batches to read, at least 1, for data that does not end; None reads
            all.
        keep: Whether to return the outputs of all passes.

    Returns:
        A :class:`Prediction`: the mean and the spread of the outputs, and for probabilities their
        entropies. For several outputs, one for each, in the structure of the outputs of the model
        (a list or a dict).

    Raises:
        InputError: Where nothing draws, where there is no batch, and where an argument breaks a
            rule.

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
    if steps is not None:
        arguments.whole_of(steps, "steps", 1)
    for kind in keras.tree.flatten(outputs):
        arguments.one_of(kind, "outputs", KINDS)
    batches = _batches(x, batch_size, steps)
    first = next(batches, None)
    if first is None:
        raise InputError("x has no batch to predict; pass at least one example")
    if not all(layer.built for layer in model._flatten_layers()):
        with keras.StatelessScope():  # as Keras builds: without a change of states
            model(first)
    structure: Any = None
    totals: list[_Totals] = []
    with sampling(model):
        changed = _Changed(model, count)
        try:
            for batch in itertools.chain((first,), batches):
                for i in range(count):
                    changed.enter(i)
                    result = model.predict_on_batch(batch)
                    changed.leave(i)
                    if not totals:
                        structure = result
                        totals = [_Totals(kind, keep) for kind in _kinds(outputs, result)]
                    for total, y in zip(totals, keras.tree.flatten(result), strict=True):
                        total.add(np.asarray(y, dtype=np.float64))
                for total in totals:
                    total.end_batch()
        finally:
            changed.restore()
    return keras.tree.pack_sequence_as(structure, [total.result() for total in totals])


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


def _batches(x: Any, batch_size: int, steps: int | None) -> Iterator[Any]:
    """The inputs of the model, batch by batch, in one pass over what ``model.predict`` takes."""
    for data in itertools.islice(_data(x, batch_size), steps):
        yield keras.utils.unpack_x_y_sample_weight(data)[0]


def _data(x: Any, batch_size: int) -> Iterator[Any]:
    loaders = sys.modules.get("torch.utils.data")
    if loaders is not None and isinstance(x, loaders.DataLoader):
        # Keras's adapter takes a batch of one tensor for a tuple of its rows
        for batch in x:
            arrays = keras.tree.map_structure(keras.ops.convert_to_numpy, batch)
            yield tuple(arrays) if isinstance(arrays, (list, tuple)) else (arrays,)
        return
    try:
        adapter = data_adapters.get_data_adapter(x=x, batch_size=batch_size, shuffle=False)
    except (ValueError, KeyError) as error:  # KeyError: where there is no array at all
        raise InputError(
            f"x cannot be read: {error}; pass arrays of equal length, or a dataset, loader or "
            "generator of batches"
        ) from error
    adapter.on_epoch_begin()
    try:
        yield from adapter.get_numpy_iterator()
    finally:
        adapter.on_epoch_end()


def _kinds(outputs: Any, result: Any) -> list[Outputs]:
    """What each output of the model is."""
    if isinstance(outputs, str):
        return [outputs] * len(keras.tree.flatten(result))  # type: ignore[list-item]
    try:
        keras.tree.assert_same_structure(outputs, result)
    except (TypeError, ValueError):
        names = keras.tree.map_structure(lambda y: "values", result)
        raise arguments.invalid(
            "outputs",
            f"Expected one string, or the structure of the outputs of the model, such as {names}.",
            outputs,
        ) from None
    return list(keras.tree.flatten(outputs))


def _recurrent_states(layer: Any) -> list[Any]:
    states = keras.tree.flatten(getattr(layer, "states", None))
    return [v for v in states if isinstance(v, keras.Variable)]


class _Changed:
    """What passes change in a model besides seeds and metrics, such as recurrent states, kept
    apart for each pass.
    """

    def __init__(self, model: keras.Model, samples: int) -> None:
        states = {
            id(v): v
            for layer in model._flatten_layers()
            # Keras does not track the states of recurrent layers
            for v in (*layer._non_trainable_variables, *_recurrent_states(layer))
        }
        self.variables = list(states.values())
        self.before = [keras.ops.convert_to_numpy(v.value).copy() for v in self.variables]
        self.found: set[int] = set()  # the places of variables that passes change
        self.values: list[dict[int, Any]] = [{} for _ in range(samples)]

    def enter(self, sample: int) -> None:
        """Before a call: the values that this pass left."""
        for i in self.found:
            self.variables[i].assign(self.values[sample].get(i, self.before[i]))

    def leave(self, sample: int) -> None:
        """After a call."""
        for i, variable in enumerate(self.variables):
            value = keras.ops.convert_to_numpy(variable.value)
            if i in self.found or not np.array_equal(value, self.before[i]):
                self.found.add(i)
                self.values[sample][i] = value.copy()

    def restore(self) -> None:
        """The values from before all passes."""
        for i in self.found:
            self.variables[i].assign(self.before[i])


def _sums_to_one(y: Array) -> bool:
    return (
        y.ndim > 1
        and y.shape[-1] > 1
        and bool((y >= 0).all() and np.allclose(y.sum(-1), 1.0, atol=1e-2))
    )


class _Totals:
    """The statistics of one output: of each batch Welford's running mean and squares, and the sum
    of entropies.
    """

    def __init__(self, kind: Outputs, keep: bool) -> None:
        self.kind: Outputs = "probabilities" if kind == "auto" else kind
        self.guessed, self.keep = kind == "auto", keep
        self.batches: list[tuple[Any, ...]] = []  # mean, std, mean entropy and samples
        self._begin()

    def _begin(self) -> None:
        self.n = 0
        self.outputs: list[Array] = []
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.entropies: Any = 0.0

    def add(self, y: Array) -> None:
        """One pass of the batch."""
        if self.guessed and self.kind != "values" and not _sums_to_one(y):
            self.kind = "values"
        if self.kind == "logits":
            y = np.exp(y - y.max(-1, keepdims=True))
            y = y / y.sum(-1, keepdims=True)
        self.n += 1
        step = y - self.mean
        self.mean = self.mean + step / self.n
        self.squares = self.squares + step * (y - self.mean)
        if self.kind != "values":
            self.entropies = self.entropies + self._entropy(y)
        if self.keep:
            self.outputs.append(y)

    def end_batch(self) -> None:
        """All passes of the batch were added."""
        std = np.sqrt(self.squares / (self.n - 1))
        samples = np.stack(self.outputs) if self.keep else None
        self.batches.append((self.mean, std, self.entropies / self.n, samples))
        self._begin()

    def _entropy(self, p: Array) -> Array:
        if self.kind == "binary":
            p = np.stack((p[..., 0], 1.0 - p[..., 0]), -1)
        safe = np.where(p > 0, p, 1.0)
        summed: Array = -(safe * np.log(safe)).sum(-1)
        return summed

    def result(self) -> Prediction:
        means, stds, entropies, kept = zip(*self.batches, strict=True)
        mean, std = np.concatenate(means), np.concatenate(stds)
        samples = np.concatenate(kept, axis=1) if self.keep else None
        if self.kind == "values":
            return Prediction(mean=mean, std=std, samples=samples)
        entropy = self._entropy(mean)
        return Prediction(
            mean=mean,
            std=std,
            entropy=entropy,
            mutual_information=np.maximum(entropy - np.concatenate(entropies), 0.0),
            samples=samples,
        )
