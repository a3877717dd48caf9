"""Trained weights from classic scaling to inverted and back, exactly."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import fx, nn
from torch.nn import functional as F

from .._errors import InputError, unknown
from ..algebra.drop import Drop
from ..algebra.fill import Zero
from ..algebra.plan import averages
from ..algebra.scale import Classic, Inverted, Scale
from ..nn.module import DropoutModule
from ..nn.spec_layer import SpecLayer
from .edits import Edit, Edits, Rescaled, SpecChange

_SCALES: dict[str, Scale] = {"classic": Classic(), "inverted": Inverted()}
_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)
# Modules and functions f with f(c x) = c f(x) for c > 0, of one tensor, or of several that are all
# scaled alike.
_HOMOGENEOUS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Identity, nn.Flatten, nn.Unflatten, nn.Upsample, nn.ZeroPad2d,
    nn.PixelShuffle, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.modules.dropout._DropoutNd,
)  # fmt: skip
_FUNCTIONS = {
    torch.relu, F.relu, F.leaky_relu, torch.flatten, operator.add, operator.iadd, torch.add, torch.cat, torch.stack,
    operator.getitem, operator.mul, operator.truediv, operator.neg, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d,
    torch.mean, torch.sum,
}  # fmt: skip
_SUMS = {operator.add, operator.iadd, torch.add, "add"}
_PRODUCTS = {operator.mul, operator.truediv}
_METHODS = {
    "relu",
    "flatten",
    "view",
    "reshape",
    "permute",
    "transpose",
    "contiguous",
    "mean",
    "sum",
    "squeeze",
    "unsqueeze",
    "add",
}
_PLAIN = {"size", "dim", "__len__"}  # methods whose result does not scale


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DropoutModule) or super().is_leaf_module(m, module_qualified_name)


def rescale(
    model: nn.Module,
    to: Literal["classic", "inverted"] = "inverted",
    following: Mapping[str, str | Sequence[str]] | None = None,
) -> Edits:
    """Change the scaling of a trained model's dropout layers, and the weights after them, so that
    the model stays the same.

    Classic layers keep x in training and have (1 - p) x in evaluation, inverted ones x / (1 - p)
    and x; so the weights W that follow become (1 - p) W on the way to inverted, and W / (1 - p) on
    the way to classic. Training and evaluation then compute what they computed before, up to
    rounding. What differs is the size of a learning step: SGD's rate for these weights has to be
    divided by (1 - p)^2 on the way from classic to inverted to go the same way, Adam's by 1 - p.

    :class:`thinned.nn.Dropout` is converted; DropWeight and DropState scale their own weights and
    stay as they are. Which weights follow is read from the graph of ``model``; between a dropout
    and them may stand what scales with its input (ReLU, pooling, flattening, addition of equally
    scaled tensors). ``following`` names them instead, dropout layer to linear or convolutional
    layers, for models that torch.fx cannot trace. Changed in place; ``.undo()`` takes all back.

    Raises :class:`thinned.InputError` before anything is changed: for a dropout at rate 1 or under
    a schedule, for one whose result reaches something that does not scale (a softmax, a sigmoid,
    the model's end), and for torch's own dropout on the way to classic, which has no such form
    (:func:`thinned.replace` makes it ours).
    """
    if to not in _SCALES:
        raise unknown("scaling", to, _SCALES)
    specs = {
        name: _changed(name, host, to) for name, host in model.named_modules() if _moves(host, to)
    }
    if not specs:
        return Edits(())
    factors = {name: _factor(model.get_submodule(name), to) for name in specs}  # type: ignore[arg-type]
    scaled = (
        _named(model, factors, following) if following is not None else _followers(model, factors)
    )
    edits: list[Edit] = []
    names = list(model.named_parameters(remove_duplicate=False))
    for name, factor in scaled.items():
        weight = model.get_submodule(name).weight
        tied = [n for n, p in names if p is weight and n != f"{name}.weight"]
        if tied:
            raise InputError(
                f"{name}.weight is also {tied[0]}: multiplied for the one it would be wrong for the other; untie them"
            )
        assert isinstance(weight, torch.Tensor)
        edits.append(Rescaled(f"{name}.weight", weight, weight.detach().clone(), 1.0 / factor))
    for name, spec in specs.items():
        host: Any = model.get_submodule(name)
        edits.append(SpecChange(name, host, host.base_spec, spec))
    for edit in edits:
        if isinstance(edit, Rescaled):
            with torch.no_grad():
                edit.parameter.mul_(edit.factor)
        elif isinstance(edit, SpecChange):
            edit.host.set_spec(edit.after)
    return Edits(tuple(edits))


def _moves(host: nn.Module, to: str) -> bool:
    if to == "classic" and type(host).__module__ == "torch.nn.modules.dropout":
        raise InputError(
            f"torch's {type(host).__name__} has no classic form; call thinned.replace(model) first"
        )
    if not isinstance(host, SpecLayer):
        return False
    was = Inverted if to == "classic" else Classic
    return isinstance(host.base_spec.scale, was) and host.base_spec.law.mean() != 1.0


def _changed(name: str, host: Any, to: str) -> Drop:
    if host.schedule is not None:
        raise InputError(
            f"layer {name!r} has a schedule, so no one factor fits its weights; set a fixed rate first"
        )
    if host.p == 1.0:
        raise InputError(
            f"layer {name!r} drops everything (p = 1), so no weights can make up for it"
        )
    label = host.base_spec.name.removesuffix("-classic") + ("-classic" if to == "classic" else "")
    spec: Drop = host.base_spec
    return replace(spec, scale=_SCALES[to], name=label if spec.name else "")


def _factor(host: SpecLayer, to: str) -> float:
    """By what the result of a layer will be multiplied, in training as in evaluation."""
    kept = averages(replace(host.spec, scale=Classic()))[0]
    return kept if to == "classic" else 1.0 / kept


def _named(
    model: nn.Module, factors: dict[str, float], following: Mapping[str, str | Sequence[str]]
) -> dict[str, float]:
    for name in following:
        if name not in factors:
            raise unknown("dropout layer to rescale", name, factors)
    missing = factors.keys() - following.keys()
    if missing:
        raise InputError(
            f"following has to name what follows every dropout layer, but lacks {min(missing)!r}"
        )
    scaled: dict[str, float] = {}
    for name, layers in following.items():
        for layer in [layers] if isinstance(layers, str) else layers:
            if not isinstance(dict(model.named_modules()).get(layer), _WEIGHTS):
                raise InputError(
                    f"following names {layer!r} after {name!r}, which is no linear or convolutional layer here"
                )
            scaled[layer] = scaled.get(layer, 1.0) * factors[name]
    return scaled


def _followers(model: nn.Module, factors: dict[str, float]) -> dict[str, float]:
    """By what the input of each weight layer will be multiplied, from the model's graph."""
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        raise InputError(
            f"the graph of this model cannot be read ({type(error).__name__}: {error}); pass following={{'dropout layer': "
            "'layer with the weights after it'}} instead"
        ) from error
    modules = dict(model.named_modules())
    scale: dict[fx.Node, float] = {}
    scaled: dict[str, float] = {}
    for node in graph.nodes:
        given = {scale[n] for n in node.all_input_nodes if not _plain(n)}
        into = given.pop() if len(given) == 1 else 1.0
        target = modules.get(str(node.target)) if node.op == "call_module" else None
        if given:
            raise InputError(
                f"{node.name} puts together what dropout scales and what it does not; no weights can make up for that"
            )
        if isinstance(target, _WEIGHTS):
            name = str(node.target)
            if scaled.setdefault(name, into) != into:
                raise InputError(
                    f"layer {name!r} is called on inputs that are scaled differently; it cannot be rescaled"
                )
            scale[node] = 1.0
        elif into == 1.0 or _plain(node):
            scale[node] = 1.0
        elif _homogeneous(node, target):
            scale[node] = into
        else:
            what = "the end of the model" if node.op == "output" else str(node.target)
            raise InputError(
                f"dropout reaches {what}, which does not scale with its input, before any weights; move that dropout before a "
                "linear or convolutional layer, or leave its scaling as it is"
            )
        scale[node] *= factors.get(str(node.target), 1.0) if node.op == "call_module" else 1.0
    return {name: factor for name, factor in scaled.items() if factor != 1.0}


def _plain(node: fx.Node) -> bool:
    return (node.op == "call_method" and node.target in _PLAIN) or (
        node.op == "call_function" and node.target is getattr
    )


def _homogeneous(node: fx.Node, target: nn.Module | None) -> bool:
    if node.op == "call_module":
        shifts = isinstance(target, (nn.AlphaDropout, nn.FeatureAlphaDropout)) or (
            isinstance(target, SpecLayer) and target.base_spec.fill != Zero()
        )
        return isinstance(target, _HOMOGENEOUS) and not shifts
    tensors = [isinstance(a, fx.Node) for a in (*node.args, *node.kwargs.values())]
    if node.op == "output" or (node.target in _SUMS and not all(tensors)):
        return False  # x + 1 does not scale with x
    if (
        node.target in _PRODUCTS
        and tensors != [True, False]
        and (tensors, node.target) != ([False, True], operator.mul)
    ):
        return False  # x * y scales twice, 1 / x the other way round
    return node.target in (_METHODS if node.op == "call_method" else _FUNCTIONS)
