"""Methods that are modules of :mod:`thinned.nn`: where each acts in a perceptron, and its maker."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import nn as torch_nn

from .. import nn, presets
from .._errors import InputError, unknown
from ..algebra.drop import Drop
from ..algebra.schedule import SCHEDULES
from ..nn.thinned import Shrinking


@dataclass(frozen=True)
class Method:
    """A method by its name in the catalog, with its settings."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class LayerContext:
    """The part of a perceptron that a method is built for.

    ``layer`` is between ``inputs`` and ``outputs`` units, and ``activation`` follows it. The
    activation is None behind the last layer, where there is no layer, and where another method
    calls it.
    """

    layer: Any
    activation: torch_nn.Module | None
    inputs: int
    outputs: int
    random: torch.Generator


def _jumpout(
    place: LayerContext,
    sigma: Any = 0.05,
    min_rate: float = 0.0,
    max_rate: float = 0.6,
    power: float = 0.75,
) -> Any:
    if not isinstance(place.activation, torch_nn.ReLU):
        raise InputError(
            "'jumpout' follows a ReLU and counts its positive outputs; use it with "
            "activation='relu'"
        )
    return nn.Jumpout(sigma, min_rate, max_rate, power)


def _thinned(place: LayerContext, p: Any = 0.5, groups: int = 1) -> Any:
    return nn.Thinned(p, groups)


def _concrete(
    place: LayerContext, p: float = 0.1, temperature: float = 0.1, unbiased: bool = False
) -> Any:
    return nn.ConcreteDropout(place.outputs, p, temperature, unbiased=unbiased)


def _variational(place: LayerContext, p: float = 0.2, per: Any = "unit") -> Any:
    return nn.VariationalDropout(place.outputs, p, per=per)


def _drop_connect(
    place: LayerContext,
    p: Any = 0.5,
    scale: Any = "classic",
    per: Any = "example",
    sampling: Any = "exact",
    inference: Any = "mean",
) -> Any:
    rate = p(0) if isinstance(p, SCHEDULES) else p
    spec = rate if isinstance(rate, Drop) else presets.drop_connect(rate, scale, per)
    inside = place.activation if inference == "moments" else None
    connected = nn.DropConnect(
        place.layer, spec, activation=inside, sampling=sampling, inference=inference
    )
    connected.schedule = p if isinstance(p, SCHEDULES) else None
    return connected


def _shakeout(place: LayerContext, p: Any = 0.5, c: float = 0.1) -> Any:
    return nn.Shakeout(place.layer, p, c)


def _targeted(place: LayerContext, p: Any = 0.5, fraction: float = 0.5) -> Any:
    return nn.TargetedDropout(place.layer, p, fraction)


def _mixout(place: LayerContext, p: Any = 0.5, per: Any = "weight") -> Any:
    return nn.Mixout(place.layer, p, per)


def _sparse_variational(place: LayerContext, threshold: float = 3.0) -> Any:
    return nn.SparseVariationalDropout(place.layer, threshold)


def _fast(place: LayerContext, p: Any = 0.5) -> Any:
    kind = place.activation
    if not isinstance(kind, (torch_nn.ReLU, torch_nn.Identity, type(None))):
        raise InputError(
            "'fast_dropout' has moments for activation='relu' and 'identity' only; with others "
            "it may follow the last hidden layer alone"
        )
    return nn.FastDropout(place.layer, p, "relu" if isinstance(kind, torch_nn.ReLU) else None)


def _targeted_unit(place: LayerContext, p: Any = 0.5, fraction: float = 0.5) -> Any:
    if not isinstance(place.layer, torch_nn.Linear):
        raise InputError(
            "'targeted_unit_dropout' drops a hidden layer's own units, but another method has "
            "the weights into them; leave one out"
        )
    return nn.TargetedDropout(place.layer, p, fraction, per="unit")


def _standout(place: LayerContext, alpha: float = 1.0, beta: float = 0.0) -> Any:
    assert place.activation is not None
    return nn.Standout(place.layer, place.activation, alpha, beta)


def _information(place: LayerContext, max_alpha: float = 0.7) -> Any:
    if not isinstance(place.activation, torch_nn.ReLU):
        raise InputError(
            "'information_dropout' has a KL term for the outputs of a ReLU; use it with "
            "activation='relu'"
        )
    noise: Any = torch_nn.utils.skip_init(torch_nn.Linear, place.inputs, place.outputs)
    bound = 1.0 / math.sqrt(place.inputs)  # as torch.nn.Linear begins, from a generator of our own
    with torch.no_grad():
        for part in (noise.weight, noise.bias):
            part.uniform_(-bound, bound, generator=place.random)
    return nn.InformationDropout(
        torch_nn.Sequential(place.layer, place.activation), noise, max_alpha
    )


UNITS: dict[str, Callable[..., Any]] = {
    "jumpout": _jumpout,
    "thinned": _thinned,
    "concrete_dropout": _concrete,
    "variational_dropout": _variational,
}
# on the weights that take the units of the place
WEIGHTS: dict[str, Callable[..., Any]] = {
    "fast_dropout": _fast,
    "drop_connect": _drop_connect,
    "mixout": _mixout,
    "shakeout": _shakeout,
    "targeted_dropout": _targeted,
    "sparse_variational_dropout": _sparse_variational,
}
# on the layer that makes these units; the input has none
OWN: dict[str, Callable[..., Any]] = {
    "standout": _standout,
    "targeted_unit_dropout": _targeted_unit,
    "information_dropout": _information,
}
METHODS = {**UNITS, **WEIGHTS, **OWN}


def modules(places: Sequence[Drop | Method | None]) -> bool:
    """Whether any of them is a method, so that the network is built of modules."""
    return any(isinstance(place, Method) for place in places)


def method(name: str, settings: Mapping[str, Any]) -> Method:
    """Return a method by name; its values are checked when it is built.

    Raises :class:`thinned.InputError` for a setting that the method does not have.
    """
    known = list(inspect.signature(METHODS[name]).parameters)[1:]
    for setting in settings:
        if setting not in known:
            raise unknown(f"setting of {name!r}", setting, known)
    return Method(name, dict(settings))


ACTIVATIONS: dict[str, Callable[[], torch_nn.Module]] = {
    "identity": torch_nn.Identity,
    "logistic": torch_nn.Sigmoid,
    "relu": torch_nn.ReLU,
    "selu": torch_nn.SELU,
    "tanh": torch_nn.Tanh,
}


def linears(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[torch_nn.Linear]:
    """Return layers that hold ``weights`` [out, in] and ``biases`` [out] without copying them."""
    layers = []
    for w, b in zip(weights, biases, strict=True):
        layer: Any = torch_nn.Linear(w.shape[1], w.shape[0], device="meta")
        layer.weight, layer.bias = torch_nn.Parameter(w), torch_nn.Parameter(b)
        layers.append(layer)
    return layers


def network(
    layers: Sequence[torch_nn.Linear],
    activation: str,
    specs: Sequence[Drop | Method | None],
    seed: int,
) -> torch_nn.Sequential:
    """Build the perceptron as a module: ``layer0``, ``act0``, ``layer1`` and so on, with the noise
    of place i as ``drop<i>``.

    Raises :class:`thinned.InputError` where methods cannot be combined.
    """
    random = torch.Generator().manual_seed(seed)
    out = torch_nn.Sequential()
    act: torch_nn.Module | None = None
    spread = False  # whether the units are given as a mean and a variance
    for i, layer in enumerate(layers):
        here = None if _owns(specs[i]) else specs[i]
        after = specs[i + 1] if i + 1 < len(layers) else None
        before, act = act, None if i + 1 == len(layers) else ACTIVATIONS[activation]()
        owner: Any = after if _owns(after) else None
        fast = isinstance(here, Method) and here.name == "fast_dropout"
        if (spread and here is not None and not fast) or ((spread or fast) and owner is not None):
            raise InputError(
                "'fast_dropout' gives means and variances, so behind it comes 'fast_dropout' or "
                "nothing, but got "
                f"{_shown(owner or here)!r} at place {i + bool(owner)} (0 is the input)"
            )
        name, module = f"layer{i}", layer
        place = LayerContext(
            layer, None if owner else act, layer.in_features, layer.out_features, random
        )
        if isinstance(here, Method) and here.name in WEIGHTS:
            name, module = f"drop{i}", WEIGHTS[here.name](place, **here.settings)
        elif here is not None:
            out.add_module(
                f"drop{i}",
                _on_units(here, LayerContext(None, before, 0, layer.in_features, random)),
            )
        elif spread:
            module = _fast(place, 0.0)
        inside = getattr(module, "activation", None) is not None
        if owner is not None:
            place = LayerContext(module, act, layer.in_features, layer.out_features, random)
            name, module = f"drop{i + 1}", OWN[owner.name](place, **owner.settings)
            inside = owner.name != "targeted_unit_dropout"
        out.add_module(name, module)
        if act is not None and not inside:
            out.add_module(f"act{i}", act)
        spread = spread or fast
    _link(out)
    return out


def _link(net: torch_nn.Sequential) -> None:
    """Leave the units that thinning drops out of the products of the linear layers around it.

    The results are the same, with less work.
    """
    modules: list[Any] = list(net)
    made: dict[Any, Shrinking] = {}
    for k, thinned_layer in enumerate(modules):
        if not isinstance(thinned_layer, nn.Thinned) or type(modules[k + 1]) is not torch_nn.Linear:
            continue
        thinned_layer.linked = True
        made.setdefault(modules[k + 1], Shrinking(modules[k + 1])).before = thinned_layer
        if k and type(modules[k - 2]) is torch_nn.Linear:  # its activation stands between
            made.setdefault(modules[k - 2], Shrinking(modules[k - 2])).behind = thinned_layer
    for layer, forward in made.items():
        layer.forward = forward


def _owns(value: Drop | Method | None) -> bool:
    """Whether it is part of the layer before."""
    return isinstance(value, Method) and value.name in OWN


def _on_units(value: Drop | Method, place: LayerContext) -> torch_nn.Module:
    if isinstance(value, Drop):
        return nn.SpecDropout(value)
    if value.name in UNITS:
        return UNITS[value.name](place, **value.settings)
    rate = presets.rate_name(value.name)  # the rate of this spec is a schedule
    schedule = value.settings[rate]
    spec = presets.make(value.name, **{**value.settings, rate: schedule(0)})
    return nn.SpecDropout(spec, schedule=schedule)


def _shown(value: Any) -> str:
    return value.name or repr(value)
