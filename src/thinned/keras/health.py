"""The known mistakes in a Keras model, seen in runs of it."""

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
from .layers.anchored import Shakeout
from .layers.attention import DropHead
from .layers.base import SpecLayer
from .layers.learned import ConcreteDropout
from .sites import check_model

_UNLIKELY = 5.0  # standard errors
_PASSES = 8  # to measure a rate
_SHAPING = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute)


@dataclass
class _Call:
    """One call of a layer in a pass: which layers' tensors it took, and whether its output differs
    from its input.
    """

    name: str
    layer: keras.Layer
    given: Any
    made: Any
    sources: list[str]


@dataclass
class _Pass:
    """A pass as its layers saw it. Tensors are told apart by identity, so all of them are kept."""

    log: list[_Call] = field(default_factory=list)
    makers: dict[int, str] = field(default_factory=dict)

    def watch(self, name: str) -> Callable[[keras.Layer], calls.Around]:
        def around(layer: keras.Layer) -> calls.Around:
            def of(call: Callable[..., Any]) -> Callable[..., Any]:
                def seen(*args: Any, **kwargs: Any) -> Any:
                    given = [t for t in keras.tree.flatten((args, kwargs)) if _tensor(t)]
                    sources = [self.makers[id(t)] for t in given if id(t) in self.makers]
                    made = call(*args, **kwargs)
                    results = [t for t in keras.tree.flatten(made) if _tensor(t)]
                    self.log.append(
                        _Call(name, layer, given[0] if given else None, results[0], sources)
                    )
                    for t in results:
                        self.makers.setdefault(id(t), name)
                    return made

                return seen

            return of

        return around


def check(model: keras.Model, x: Any) -> Findings:
    """What is known to go wrong with dropout, looked for in ``model`` on the batch ``x`` (what the
    model is called with).

    Found are: evaluation that draws (L7); dropout before batch normalisation (L5) and on the output
    (L14); rates of 1 and NaN (L19); measured rates that are not the nominal ones (L20); dropout
    that does nothing in training (L21); SELU with plain dropout (L22); batch normalisation that
    moves, or weights that change, in a pass (L6, L12). See :mod:`thinned.checks.rules`.

    The model runs about a dozen times; its weights and moving statistics are put back, its seeds go
    on. Call or build it before. Layers are followed by the tensors that they pass on, and so not
    through operations that stand between them in a ``call`` of one's own. Raises
    :class:`thinned.InputError` for what is no built Keras model.
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
        found += _moved(before)
        runs = [_run(model, watched, x) for _ in range(_PASSES)]
        found += _changed(before)
    finally:
        for variable, value in before:
            variable.assign(value)
    found += _structure(runs[0])
    found += _rates(runs)
    found += _nothing_left(watched, first, runs[0])
    return Findings(found)


def _tensor(t: Any) -> bool:
    return keras.ops.is_tensor(t)


def _first(outputs: Any) -> Any:
    return keras.tree.flatten(outputs)[0]


def _run(model: keras.Model, watched: dict[str, keras.Layer], x: Any) -> _Pass:
    seen, names = _Pass(), {id(layer): name for name, layer in watched.items()}
    parts = [layer for layer in watched.values() if not isinstance(layer, keras.Model)]
    inner = {
        id(c) for layer in parts if hasattr(layer, "cell") for _, c in traversal.layers(layer)
    }  # cells run inside loops
    parts = [
        layer
        for layer in parts
        if id(layer) not in inner and not isinstance(layer, keras.layers.InputLayer)
    ]
    with calls.wrapped(parts, lambda layer: seen.watch(names[id(layer)])(layer)):
        seen.log.append(_Call("", model, None, _first(model(x, training=True)), []))
    return seen


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


def _moved(before: list[tuple[Any, Any]]) -> list[Finding]:
    return [
        Finding("L6", f"{path} changes in a pass with training=False", path)
        for path in _differing(before, False)
    ]


def _changed(before: list[tuple[Any, Any]]) -> list[Finding]:
    return [
        Finding("L12", f"{path} changes in a forward pass", path)
        for path in _differing(before, True)
    ]


def _drops(layer: keras.Layer) -> bool:
    return any(s.kind == "dropout" and s.rate != 0.0 for s in traversal.sources(layer))


def _alpha(layer: Any) -> bool:
    return "Alpha" in type(layer).__name__ or (
        isinstance(layer, SpecLayer) and "alpha" in layer.base_spec.name
    )


def _uniform(layer: Any) -> bool:
    return isinstance(layer, SpecLayer) and layer.base_spec.name == "uniform_dropout"


def _activation(layer: Any) -> str | None:
    """The name of the activation that a layer ends with; None where it says none."""
    if type(layer).__name__ in ("ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax"):
        return type(layer).__name__.lower()
    return getattr(getattr(layer, "activation", None), "__name__", None)


def _structure(run: _Pass) -> list[Finding]:
    """What follows what: dropout before batch normalisation, on the output, beside SELU."""
    found: list[Finding] = []
    layers = {c.name: c for c in run.log}
    upstream: dict[str, set[str]] = defaultdict(set)  # dropout since the last normalisation
    for call in run.log:
        behind = set().union(*(upstream[s] for s in call.sources)) if call.sources else set()
        normal = "Normalization" in type(call.layer).__name__
        if isinstance(call.layer, keras.layers.BatchNormalization) and behind:
            names = ", ".join(sorted(behind))
            found.append(
                Finding("L5", f"{call.name} normalises what {names} dropped before", call.name)
            )
        dropped = {call.name} if _drops(call.layer) and not _uniform(call.layer) else set()
        upstream[call.name] = dropped if normal else behind | dropped
        if _drops(call.layer):
            found += _selu(call, layers)
    return found + _on_output(run, layers)


def _selu(call: _Call, layers: dict[str, _Call]) -> list[Finding]:
    source = layers.get(call.sources[0]) if call.sources else None
    while source is not None and isinstance(source.layer, _SHAPING) and source.sources:
        source = layers.get(source.sources[0])
    activation = None if source is None else _activation(source.layer)
    if activation is None or source is None or (activation == "selu") == _alpha(call.layer):
        return []
    if activation != "selu" and isinstance(source.layer, keras.layers.InputLayer):
        return []
    kind = type(call.layer).__name__
    return [
        Finding(
            "L22",
            f"{kind} {call.name} follows {source.name}, whose activation is {activation}",
            call.name,
        )
    ]


def _on_output(run: _Pass, layers: dict[str, _Call]) -> list[Finding]:
    name = run.makers.get(id(run.log[-1].made))
    while name in layers:
        call = layers[name]
        if _drops(call.layer) and not isinstance(
            call.layer, (ConcreteDropout, Shakeout)
        ):  # these drop what they are given
            return [
                Finding(
                    "L14", f"{name} ({type(call.layer).__name__}) drops the model's output", name
                )
            ]
        if call.layer.weights or len(call.sources) != 1:
            break
        name = call.sources[0]
    return []


def _rates(runs: list[_Pass]) -> list[Finding]:
    """The share that became 0 in layers of zero fill, beside what the rate says."""
    found = []
    for at, call in enumerate(runs[0].log):
        rates = [s.rate for s in traversal.sources(call.layer) if s.kind == "dropout"]
        if (
            len(rates) != 1
            or not rates[0]
            or not _like(call)
            or len(runs[-1].log) != len(runs[0].log)
        ):
            continue
        seen = [
            (ops.convert_to_numpy(r.log[at].given), ops.convert_to_numpy(r.log[at].made))
            for r in runs
        ]
        if all(np.array_equal(a, b) for a, b in seen):
            if rates[0] < 1.0 and seen[0][0].size * _PASSES * rates[0] < 20:
                continue
            message = f"{call.name} has the rate {rates[0]:g}, and does nothing in training"
            found.append(Finding("L21", message, call.name, evidence=(("rate", rates[0]),)))
        elif _zeroes(call.layer) and 0.0 < rates[0] < 1.0:
            found += _rate(call, rates[0], seen)
    return found


def _like(call: _Call) -> bool:
    return call.given is not None and tuple(call.given.shape) == tuple(call.made.shape)


def _zeroes(layer: Any) -> bool:
    if isinstance(layer, traversal.OURS) and not isinstance(layer, (SpecLayer, DropHead)):
        return False
    return not (_alpha(layer) or _uniform(layer) or "Gaussian" in type(layer).__name__)


def _rate(call: _Call, rate: float, seen: list[tuple[Any, Any]]) -> list[Finding]:
    fell = of = 0
    for given, made in seen:
        there = given != 0
        fell, of = fell + int((there & (made == 0)).sum()), of + int(there.sum())
    shares = [float(((a != 0) & (b == 0)).sum() / max((a != 0).sum(), 1)) for a, b in seen]
    if not of:
        return []
    measured, expected = fell / of, _expected(call, rate)
    # Coins may be shared, so how far a share wanders is read from the passes themselves, and at
    # least as for single coins.
    error = max(
        float(np.std(shares, ddof=1)) / _PASSES**0.5, (expected * (1.0 - expected) / of) ** 0.5
    )
    if abs(measured - expected) <= max(_UNLIKELY * error, 0.02 * expected):
        return []
    message = f"{call.name} has the rate {rate:g}, but drops {measured:.3f}"
    return [Finding("L20", message, call.name, evidence=(("rate", rate), ("measured", measured)))]


def _expected(call: _Call, rate: float) -> float:
    """What our own blocks drop by their definition; the rate, for all else."""
    if not isinstance(call.layer, SpecLayer):
        return rate
    shape = tuple(call.given.shape)
    _, extent = engine.cells(shape, call.layer.base_spec, call.layer.noise_shape)
    if max(extent) == 1:
        return rate
    return block_fraction(seed_rate(rate, extent, shape), extent, shape)


def _nothing_left(watched: dict[str, keras.Layer], first: Any, run: _Pass) -> list[Finding]:
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
                found.append(
                    Finding("L19", f"{name} drops everything: {source.argument} is 1", name)
                )
    last = ops.convert_to_numpy(run.log[-1].made)
    if np.isnan(last.astype("float64")).any() and not np.isnan(first.astype("float64")).any():
        found.append(Finding("L19", "the output is NaN in training, and not in evaluation", ""))
    return found
