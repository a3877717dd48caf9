"""Converting a trained model between classic and inverted scaling, exactly."""

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
from .edits import Edit, Edits, SpecChange, WeightScaling
from .preserve import restoring

_SCALES: dict[str, Scale] = {"classic": Classic(), "inverted": Inverted()}
_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
# Modules and functions with f(c x) = c f(x) for c > 0: of one tensor, or of several that are all
# scaled alike. A factor passes them unchanged, up to the weights that make up for it.
_HOMOGENEOUS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Upsample,
    nn.ZeroPad2d,
    nn.PixelShuffle,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.modules.dropout._DropoutNd,
)
_FUNCTIONS = {
    torch.relu,
    F.relu,
    F.leaky_relu,
    torch.flatten,
    operator.add,
    operator.iadd,
    torch.add,
    torch.cat,
    torch.stack,
    operator.getitem,
    operator.mul,
    operator.truediv,
    operator.neg,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    torch.mean,
    torch.sum,
}
_ADDITIONS = {operator.add, operator.iadd, torch.add, "add"}
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
_SIZES = {"size", "dim", "__len__"}  # methods with results that do not scale


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DropoutModule) or super().is_leaf_module(m, module_qualified_name)


def rescale(
    model: nn.Module,
    to: Literal["classic", "inverted"] = "inverted",
    following: Mapping[str, str | Sequence[str]] | None = None,
) -> Edits:
    """Convert the dropout layers of a trained model to another scaling, and the weights after them,
    in place, so that the model computes the same.

    Classic layers return m x in training and (1 - p) x in evaluation, inverted layers m x / (1 - p)
    and x. So the weights W that follow become (1 - p) W on the way to inverted, and W / (1 - p) on
    the way to classic. Training and evaluation then compute what they did before, up to rounding.
    The size of a learning step differs: on the way from classic to inverted, the learning rate of
    these weights has to be multiplied by (1 - p)^2 for SGD to follow the same path, and by 1 - p
    for Adam.

    Layers with classic or inverted scaling are converted, such as :class:`thinned.nn.Dropout`.
    Layers that drop weights or states (DropConnect, recurrent dropout) scale their own weights and
    are left as they are. Which weights follow is read from the graph of the model: between a
    dropout and the weights, every operation has to scale with its input, such as ReLU, pooling,
    flattening, and the addition of equally scaled tensors.

    Args:
        model: The model to change.
        to: The scaling to convert to.
        following: The layers with weights that follow each dropout, as {name of the dropout layer:
            name or names of linear or convolutional layers}, for models that torch.fx cannot trace.
            None reads them from the graph.

    Returns:
        The changes; ``undo()`` restores scaling and weights exactly.

    Raises:
        InputError: Before anything is changed: where a dropout has the rate 1 or a schedule, where
            its result reaches something that does not scale with its input (a softmax, a sigmoid,
            the end of the model), where weights are tied, and for torch's own dropout on the way to
            classic, which it does not have (:func:`thinned.replace` makes layers of thinned).

    Example:
        >>> from thinned.nn import Dropout
        >>> model = nn.Sequential(Dropout(0.5, scale="classic"), nn.Linear(4, 2))
        >>> rescale(model, to="inverted")
        1.weight: times 0.5
        0: classic -> inverted

    Reference:
        Srivastava et al. 2014, section 10: weights times 1 - p at test time, or inputs divided by
        it in training.
    """
    if to not in _SCALES:
        raise unknown("scaling", to, _SCALES)
    specs = {
        name: _rescaled_spec(name, layer, to)
        for name, layer in model.named_modules()
        if _has_other_scaling(layer, to)
    }
    if not specs:
        return Edits(())
    factors = {name: _factor(model.get_submodule(name), to) for name in specs}  # type: ignore[arg-type]
    weight_factors = (
        _named_followers(model, factors, following)
        if following is not None
        else _followers(model, factors)
    )
    edits: list[Edit] = []
    names = list(model.named_parameters(remove_duplicate=False))
    for name, factor in weight_factors.items():
        weight = model.get_submodule(name).weight
        tied = [n for n, p in names if p is weight and n != f"{name}.weight"]
        if tied:
            raise InputError(
                f"{name}.weight is also {tied[0]}: multiplied for the one it would be wrong for "
                "the other; untie them"
            )
        assert isinstance(weight, torch.Tensor)
        edits.append(
            WeightScaling(
                path=f"{name}.weight",
                parameter=weight,
                old=weight.detach().clone(),
                factor=1.0 / factor,
            )
        )
    for name, spec in specs.items():
        layer: Any = model.get_submodule(name)
        edits.append(SpecChange(path=name, layer=layer, old=layer.base_spec, new=spec))
    for edit in edits:
        if isinstance(edit, WeightScaling):
            with torch.no_grad():
                edit.parameter.mul_(edit.factor)
        elif isinstance(edit, SpecChange):
            edit.layer.set_spec(edit.new)
    return Edits(tuple(edits))


def _has_other_scaling(layer: nn.Module, to: str) -> bool:
    if to == "classic" and type(layer).__module__ == "torch.nn.modules.dropout":
        raise InputError(
            f"torch's {type(layer).__name__} has no classic form; call thinned.replace(model) first"
        )
    if not isinstance(layer, SpecLayer):
        return False
    other = Inverted if to == "classic" else Classic
    # noise of mean 1, such as Gaussian dropout, has nothing to scale
    return isinstance(layer.base_spec.scale, other) and layer.base_spec.law.mean() != 1.0


def _rescaled_spec(name: str, layer: Any, to: str) -> Drop:
    if layer.schedule is not None:
        raise InputError(
            f"layer {name!r} has a schedule, so no one factor fits its weights; set a fixed rate "
            "first"
        )
    if layer.p == 1.0:
        raise InputError(
            f"layer {name!r} drops everything (p = 1), so no weights can make up for it"
        )
    label = layer.base_spec.name.removesuffix("-classic") + ("-classic" if to == "classic" else "")
    spec: Drop = layer.base_spec
    return replace(spec, scale=_SCALES[to], name=label if spec.name else "")


def _factor(layer: SpecLayer, to: str) -> float:
    """Return the factor of the result in the new scaling, in training and in evaluation."""
    kept = averages(replace(layer.spec, scale=Classic()))[0]
    return kept if to == "classic" else 1.0 / kept


def _named_followers(
    model: nn.Module, factors: dict[str, float], following: Mapping[str, str | Sequence[str]]
) -> dict[str, float]:
    """Return the factor of the input of each layer that ``following`` names."""
    for name in following:
        if name not in factors:
            raise unknown("dropout layer to rescale", name, factors)
    missing = factors.keys() - following.keys()
    if missing:
        raise InputError(
            f"following has to name what follows every dropout layer, but lacks {min(missing)!r}"
        )
    weight_factors: dict[str, float] = {}
    modules = dict(model.named_modules())
    for name, layers in following.items():
        for layer in [layers] if isinstance(layers, str) else layers:
            if not isinstance(modules.get(layer), _WEIGHTED):
                raise InputError(
                    f"following names {layer!r} after {name!r}, which is not a linear or "
                    "convolutional layer here"
                )
            weight_factors[layer] = weight_factors.get(layer, 1.0) * factors[name]
    return weight_factors


def _followers(model: nn.Module, factors: dict[str, float]) -> dict[str, float]:
    """Return the factor of the input of each layer with weights, from the graph of the model.

    The nodes are visited in the order of the pass. A dropout layer multiplies by its factor,
    homogeneous operations pass a factor on, weights make up for it.
    """
    try:
        with restoring(model, (), parameters=False):  # its code runs, with proxies for parameters
            graph = _Tracer().trace(model)
    except Exception as error:
        raise InputError(
            f"the graph of this model cannot be read ({type(error).__name__}: {error}); pass "
            "following={'dropout layer': 'layer with the weights after it'} instead"
        ) from error
    modules = dict(model.named_modules())
    scale: dict[fx.Node, float] = {}
    weight_factors: dict[str, float] = {}
    for node in graph.nodes:
        input_scales = {scale[n] for n in node.all_input_nodes if not _is_size(n)}
        into = input_scales.pop() if len(input_scales) == 1 else 1.0
        target = modules.get(str(node.target)) if node.op == "call_module" else None
        if input_scales:
            raise InputError(
                f"{node.name} combines values that dropout scales with values that it does not; no "
                "weights can make up for that"
            )
        if isinstance(target, _WEIGHTED):
            name = str(node.target)
            if weight_factors.setdefault(name, into) != into:
                raise InputError(
                    f"layer {name!r} is called on inputs that are scaled differently; it cannot be "
                    "rescaled"
                )
            scale[node] = 1.0
        elif into == 1.0 or _is_size(node):
            scale[node] = 1.0
        elif _is_homogeneous(node, target):
            scale[node] = into
        else:
            what = "the end of the model" if node.op == "output" else str(node.target)
            raise InputError(
                f"dropout reaches {what}, which does not scale with its input, before any weights; "
                "move that dropout before a linear or convolutional layer, or leave its scaling as "
                "it is"
            )
        scale[node] *= factors.get(str(node.target), 1.0) if node.op == "call_module" else 1.0
    return {name: factor for name, factor in weight_factors.items() if factor != 1.0}


def _is_size(node: fx.Node) -> bool:
    """Return whether a node is a size or an attribute, which does not scale with the values."""
    return (node.op == "call_method" and node.target in _SIZES) or (
        node.op == "call_function" and node.target is getattr
    )


def _is_homogeneous(node: fx.Node, target: nn.Module | None) -> bool:
    """Return whether the result of a node scales with its input."""
    if node.op == "call_module":
        # a dropped unit of alpha dropout is a constant, which does not scale
        shifts = isinstance(target, (nn.AlphaDropout, nn.FeatureAlphaDropout)) or (
            isinstance(target, SpecLayer) and target.base_spec.fill != Zero()
        )
        return isinstance(target, _HOMOGENEOUS) and not shifts
    tensors = [isinstance(a, fx.Node) for a in (*node.args, *node.kwargs.values())]
    if node.op == "output" or (node.target in _ADDITIONS and not all(tensors)):
        return False  # x + 1 does not scale with x
    if (
        node.target in _PRODUCTS
        and tensors != [True, False]
        and (tensors, node.target) != ([False, True], operator.mul)
    ):
        return False  # x * y scales twice, 1 / x inversely
    return node.target in (_METHODS if node.op == "call_method" else _FUNCTIONS)
