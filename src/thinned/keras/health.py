"""The known mistakes in a Keras model, found by running it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import keras
from keras import ops

from .._errors import InputError
from ..algebra.per import block_fraction, seed_rate
from ..checks.finding import Finding, Findings
from ..engines import keras as engine
from . import calls, traversal
from .layers.attention import DropHead
from .layers.learned import ConcreteDropout
from .layers.spec_layer import SpecLayer
from .layers.weight_methods import Shakeout
from .sites import check_model

_UNLIKELY = 5.0  # standard errors
_PASSES = 8  # to measure a rate
_SHAPING = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute)


@dataclass(kw_only=True)
class _Call:
    """One call of a layer in a pass; ``sources`` are the names of the layers that produced its
    inputs.
    """

    name: str
    layer: keras.Layer
    input: Any
    output: Any
    sources: list[str]


@dataclass
class _Pass:
    """A pass as its layers saw it.

    Tensors are identified by their id, so all of them are kept: the id of a freed tensor may be
    used again.
    """

    records: list[_Call] = field(default_factory=list)
    producers: dict[int, str] = field(default_factory=dict)  # id of a tensor -> name of the layer

    def record(self, name: str, layer: keras.Layer) -> calls.CallWrapper:
        def wrapper(call: Callable[..., Any]) -> Callable[..., Any]:
            def recorded(*args: Any, **kwargs: Any) -> Any:
                inputs = [t for t in keras.tree.flatten((args, kwargs)) if _is_tensor(t)]
                sources = [self.producers[id(t)] for t in inputs if id(t) in self.producers]
                result = call(*args, **kwargs)
                outputs = [t for t in keras.tree.flatten(result) if _is_tensor(t)]
                self.records.append(
                    _Call(
                        name=name,
                        layer=layer,
                        input=inputs[0] if inputs else None,
                        output=outputs[0],
                        sources=sources,
                    )
                )
                for t in outputs:
                    self.producers.setdefault(id(t), name)
                return result

            return recorded

        return wrapper


def check(model: keras.Model, x: Any) -> Findings:
    """Look for the known mistakes with dropout in a model, by running it on a batch.

    It finds evaluation that draws (L7); dropout before batch normalization (L5) and on the output
    (L14); rates of 1 and NaN (L19); measured rates that are not the nominal ones (L20); dropout
    that does nothing in training (L21); SELU with ordinary dropout (L22); batch normalization that
    is updated in evaluation, or weights that change in a forward pass (L6, L12). See
    :mod:`thinned.checks.rules`.

    The model runs about a dozen times. Its weights and moving statistics are restored; its seeds
    advance. Layers are connected by the tensors that they pass on, so operations between them in a
    ``call`` of your own interrupt the chain.

    Args:
        model: A built Keras model.
        x: A batch, as the model is called with.

    Returns:
        The findings; empty where there are none.

    Raises:
        InputError: Where ``model`` is no Keras model, or has no weights yet.

    Example:
        >>> import numpy as np
        >>> from thinned.keras import layers
        >>> dense = keras.layers.Dense
        >>> model = keras.Sequential([keras.Input((4,)), dense(8), layers.Dropout(1.0), dense(2)])
        >>> [finding.code for finding in check(model, np.ones((16, 4)))]
        ['L19']
    """
    check_model(model)
    if not model.built:
        raise InputError("this model has no weights yet; call it once on a batch, or build it")
    before = [(v, ops.convert_to_numpy(v.value)) for v in model.weights]
    watched = dict(traversal.layers(model))
    found: list[Finding] = []
    try:
        first, second = (ops.convert_to_numpy(_first(model(x, training=False))) for _ in range(2))
        found += _evaluation(model, first, second)
        found += _updated_statistics(before)
        passes = [_run(model, watched, x) for _ in range(_PASSES)]
        found += _changed_weights(before)
    finally:
        for variable, value in before:
            variable.assign(value)
    found += _structure(passes[0])
    found += _rates(passes)
    found += _nothing_left(watched, first, passes[0])
    return Findings(found)


def _is_tensor(t: Any) -> bool:
    return keras.ops.is_tensor(t)


def _first(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]


def _run(model: keras.Model, watched: dict[str, keras.Layer], x: Any) -> _Pass:
    """A pass in training, as its layers saw it."""
    run, names = _Pass(), {id(layer): name for name, layer in watched.items()}
    parts = [layer for layer in watched.values() if not isinstance(layer, keras.Model)]
    # cells run inside loops, where tensors may be symbols
    cells = {id(c) for layer in parts if hasattr(layer, "cell") for _, c in traversal.layers(layer)}
    parts = [
        layer
        for layer in parts
        if id(layer) not in cells and not isinstance(layer, keras.layers.InputLayer)
    ]
    with calls.replaced_calls(parts, lambda layer: run.record(names[id(layer)], layer)):
        output = _first(model(x, training=True))
    run.records.append(_Call(name="", layer=model, input=None, output=output, sources=[]))
    return run


def _evaluation(model: keras.Model, first: Any, second: Any) -> list[Finding]:
    if np.array_equal(first, second, equal_nan=True):
        return []
    apart = float(np.nanmax(np.abs(first.astype("float64") - second.astype("float64"))))
    message = f"two passes with training=False differ by up to {apart:.3g}"
    return [Finding("L7", message, model.name, evidence=(("largest difference", apart),))]


def _differing(before: list[tuple[Any, Any]], trainable: bool) -> list[str]:
    return [
        v.path
        for v, value in before
        if v.trainable is trainable and not np.array_equal(ops.convert_to_numpy(v.value), value)
    ]


def _updated_statistics(before: list[tuple[Any, Any]]) -> list[Finding]:
    return [
        Finding("L6", f"{path} changes in a pass with training=False", path)
        for path in _differing(before, False)
    ]


def _changed_weights(before: list[tuple[Any, Any]]) -> list[Finding]:
    return [
        Finding("L12", f"{path} changes in a forward pass", path)
        for path in _differing(before, True)
    ]


def _is_dropout(layer: keras.Layer) -> bool:
    return any(s.kind == "dropout" and s.rate != 0.0 for s in traversal.sources(layer))


def _is_alpha(layer: Any) -> bool:
    return "Alpha" in type(layer).__name__ or (
        isinstance(layer, SpecLayer) and "alpha" in layer.base_spec.name
    )


def _is_uniform(layer: Any) -> bool:
    return isinstance(layer, SpecLayer) and layer.base_spec.name == "uniform_dropout"


def _activation_of(layer: Any) -> str | None:
    """The name of the activation that a layer ends with; None where it has none."""
    if type(layer).__name__ in ("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"):
        return type(layer).__name__.lower()
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _structure(run: _Pass) -> list[Finding]:
    """Dropout before batch normalization, on the output, and next to SELU."""
    found: list[Finding] = []
    layers = {c.name: c for c in run.records}
    upstream: dict[str, set[str]] = defaultdict(set)  # dropout since the last normalization
    for call in run.records:
        earlier = set().union(*(upstream[s] for s in call.sources)) if call.sources else set()
        normalizes = "Normalization" in type(call.layer).__name__
        if isinstance(call.layer, keras.layers.BatchNormalization) and earlier:
            names = ", ".join(sorted(earlier))
            message = f"{call.name} normalizes what {names} dropped before"
            found.append(Finding("L5", message, call.name))
        drops = _is_dropout(call.layer)
        dropped = {call.name} if drops and not _is_uniform(call.layer) else set()
        upstream[call.name] = dropped if normalizes else earlier | dropped
        if drops:
            found += _selu(call, layers)
    return found + _on_output(run, layers)


def _selu(call: _Call, layers: dict[str, _Call]) -> list[Finding]:
    source = layers.get(call.sources[0]) if call.sources else None
    while source is not None and isinstance(source.layer, _SHAPING) and source.sources:
        source = layers.get(source.sources[0])
    activation = None if source is None else _activation_of(source.layer)
    if activation is None or source is None or (activation == "selu") == _is_alpha(call.layer):
        return []
    if activation != "selu" and isinstance(source.layer, keras.layers.InputLayer):
        return []
    kind = type(call.layer).__name__
    return [
        Finding(
            "L22",
            f"{kind} {call.name} follows {source.name}, which has the activation {activation}",
            call.name,
        )
    ]


def _on_output(run: _Pass, layers: dict[str, _Call]) -> list[Finding]:
    name = run.producers.get(id(run.records[-1].output))
    while name in layers:
        call = layers[name]
        # ConcreteDropout and Shakeout drop the input of the layer inside
        if _is_dropout(call.layer) and not isinstance(call.layer, (ConcreteDropout, Shakeout)):
            message = f"{name} ({type(call.layer).__name__}) drops the output of the model"
            return [Finding("L14", message, name)]
        if call.layer.weights or len(call.sources) != 1:
            break
        name = call.sources[0]
    return []


def _rates(passes: list[_Pass]) -> list[Finding]:
    """The fraction that became 0 in layers that fill with zero, compared with their rates."""
    found = []
    for i, call in enumerate(passes[0].records):
        rates = [s.rate for s in traversal.sources(call.layer) if s.kind == "dropout"]
        if (
            len(rates) != 1
            or not rates[0]
            or not _keeps_shape(call)
            or len(passes[-1].records) != len(passes[0].records)
        ):
            continue
        pairs = [
            (ops.convert_to_numpy(p.records[i].input), ops.convert_to_numpy(p.records[i].output))
            for p in passes
        ]
        if all(np.array_equal(before, after) for before, after in pairs):
            if rates[0] < 1.0 and pairs[0][0].size * _PASSES * rates[0] < 20:
                continue  # so few draws may all have kept
            message = f"{call.name} has the rate {rates[0]:g}, and does nothing in training"
            found.append(Finding("L21", message, call.name, evidence=(("rate", rates[0]),)))
        elif _fills_with_zero(call.layer) and 0.0 < rates[0] < 1.0:
            found += _compare_rate(call, rates[0], pairs)
    return found


def _keeps_shape(call: _Call) -> bool:
    return call.input is not None and tuple(call.input.shape) == tuple(call.output.shape)


def _fills_with_zero(layer: Any) -> bool:
    if isinstance(layer, traversal.OURS) and not isinstance(layer, (SpecLayer, DropHead)):
        return False
    return not (_is_alpha(layer) or _is_uniform(layer) or "Gaussian" in type(layer).__name__)


def _compare_rate(call: _Call, rate: float, pairs: list[tuple[Any, Any]]) -> list[Finding]:
    """``pairs``: (input, output) of the layer in each pass."""
    dropped = [int(((before != 0) & (after == 0)).sum()) for before, after in pairs]
    nonzero = [int((before != 0).sum()) for before, _ in pairs]
    total = sum(nonzero)
    if not total:
        return []
    measured, expected = sum(dropped) / total, _expected_fraction(call, rate)
    # Elements may share draws, so the spread of the fraction is measured over the passes, and is at
    # least that of independent draws.
    fractions = [d / max(n, 1) for d, n in zip(dropped, nonzero, strict=True)]
    error = max(
        float(np.std(fractions, ddof=1)) / _PASSES**0.5,
        (expected * (1.0 - expected) / total) ** 0.5,
    )
    if abs(measured - expected) <= max(_UNLIKELY * error, 0.02 * expected):
        return []
    message = f"{call.name} has the rate {rate:g}, but drops {measured:.3f}"
    return [Finding("L20", message, call.name, evidence=(("rate", rate), ("measured", measured)))]


def _expected_fraction(call: _Call, rate: float) -> float:
    """The fraction that our blocks drop by their definition; the rate for every other layer."""
    if not isinstance(call.layer, SpecLayer):
        return rate
    shape = tuple(call.input.shape)
    _, extent = engine.mask_shape(shape, call.layer.base_spec, call.layer.noise_shape)
    if max(extent) == 1:
        return rate
    return block_fraction(seed_rate(rate, extent, shape), extent, shape)


def _nothing_left(watched: dict[str, keras.Layer], first: Any, run: _Pass) -> list[Finding]:
    """Rates of 1, and NaN in training alone."""
    found = []
    for name, layer in watched.items():
        for source in traversal.sources(layer):
            if source.rate != 1.0 or source.kind == "noise":
                continue
            if source.argument == "recurrent_dropout":
                message = (
                    f"{name} has recurrent_dropout=1.0, which Keras ignores: nothing is dropped"
                )
                found.append(Finding("L21", message, name, remedy="choose a rate below 1"))
            else:
                message = f"{name} drops everything: {source.argument} is 1"
                found.append(Finding("L19", message, name))
    last = ops.convert_to_numpy(run.records[-1].output)
    if np.isnan(last.astype("float64")).any() and not np.isnan(first.astype("float64")).any():
        found.append(Finding("L19", "the output is NaN in training, and not in evaluation", ""))
    return found
