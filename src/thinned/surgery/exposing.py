"""Exposing functional dropout as layers, so that rates, keys and modes reach it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .. import nn as ours
from .._errors import InputError
from ..nn.contexts import Context, entered
from ..nn.module import DropoutModule
from .attribute_rates import run_all_layers
from .calls import CHECKPOINT, CallSite, find_caller
from .draws import DROPOUTS, argument, classify_draw, function_name
from .edits import CallInsertion, Edits, apply_edits
from .model_access import unwrap_compiled
from .model_call import Forward, ModelCall
from .observe import line_outside, preserve_state
from .rates import rate_of
from .replacing import check_layout
from .sites import find

# the layer for a function; nn.Dropout for the others of _EXPOSABLE
_LAYERS: dict[Any, Callable[[float], Any]] = {
    F.dropout1d: ours.Dropout1d,
    F.dropout2d: ours.Dropout2d,
    F.dropout3d: ours.Dropout3d,
    F.alpha_dropout: ours.AlphaDropout,
    torch.alpha_dropout: ours.AlphaDropout,
    torch.alpha_dropout_: ours.AlphaDropout,
    F.feature_alpha_dropout: ours.FeatureAlphaDropout,
    torch.feature_alpha_dropout: ours.FeatureAlphaDropout,
    torch.feature_alpha_dropout_: ours.FeatureAlphaDropout,
    F.scaled_dot_product_attention: ours.AttentionDropout,
}
_EXPOSABLE = _LAYERS.keys() | {
    F.dropout,
    torch.dropout,
    torch.dropout_,
    F.multi_head_attention_forward,
}
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(kw_only=True)
class _FunctionalCall:
    """A call site of functional dropout: its rates in training, and whether it drops in evaluation
    too.
    """

    path: str
    module: nn.Module
    func: Any
    site: CallSite
    line: str
    rates: list[float] = field(default_factory=list)
    in_eval: bool = False

    def __str__(self) -> str:
        return f"{function_name(self.func)} at {self.line}"


class ExposedCall:
    """A call handler that makes a call of functional dropout by a layer.

    The layer takes the rate of the call, until a user sets the rate of the layer, which is then
    kept. With ``follow_mode`` the mode of the layer decides whether it drops; otherwise the call
    decides, as before, unless a mode such as :func:`thinned.sampling` overrides the layer.
    """

    def __init__(self, layer: Any, follow_mode: bool, where: str) -> None:
        self.where = where  # file and line
        self.layer, self.follow_mode, self.call_rate = layer, follow_mode, layer.p

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        kind, rate = classify_draw(func, args, kwargs) or ("", 0.0)
        layer = self.layer
        # A rate that differs from that of the last call was set on the layer, and is kept.
        if kind and layer.p == self.call_rate != rate:
            layer.p = self.call_rate = rate
        mode = layer.mode_override
        if mode is None:
            mode = layer.mode() if self.follow_mode else "sample" if kind else "mean"
        with entered(Context(values={"mode": {layer: mode}})):
            if func is F.scaled_dot_product_attention:
                return _attention(layer, args, kwargs, mode)
            if func is F.multi_head_attention_forward:
                return _multi_head_attention(layer, func, args, kwargs, mode)
            layer.inplace = bool(
                argument(args, kwargs, 3, "inplace", False)
            ) or func.__name__.endswith("_")
            return layer(args[0] if args else kwargs["input"])


def _attention(layer: Any, args: Any, kwargs: Any, mode: str) -> Tensor:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    settings = dict(zip(names, args, strict=False)) | kwargs
    settings.pop("dropout_p", None)
    if mode != "sample" or not layer.p:
        return F.scaled_dot_product_attention(**settings)
    query, keys, value = settings["query"], settings["key"], settings["value"]
    if settings.get("enable_gqa"):  # several queries share a head of the keys
        keys, value = (
            t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (keys, value)
        )
    layer.settings["scale"] = settings.get("scale")
    y: Tensor = layer(
        query, keys, value, settings.get("attn_mask"), settings.get("is_causal", False)
    )
    return y


def _multi_head_attention(layer: Any, func: Any, args: Any, kwargs: Any, mode: str) -> Any:
    """Call torch's function with the rate and the mode of the layer; torch draws, so keys have no
    effect.
    """
    args, kwargs = list(args), dict(kwargs)
    for index, name, value in ((10, "dropout_p", layer.p), (13, "training", mode == "sample")):
        if len(args) > index:
            args[index] = value
        else:
            kwargs[name] = value
    return func(*args, **kwargs)


def expose(
    model: nn.Module,
    *inputs: Any,
    fix: bool = False,
    layout: str | None = None,
    forward: Forward | None = None,
    **named: Any,
) -> Edits:
    """Make layers of the functional dropout in a model, in place, so that rates, keys and modes
    reach it.

    The model is run with its inputs, in training and in evaluation. Each call of ``F.dropout`` and
    related functions, of ``scaled_dot_product_attention`` and of ``multi_head_attention_forward``
    that drops while training gets a layer: the child ``functional_dropout_0``, ``_1`` and so on of
    the module that makes the call in its code. No code and no name of a parameter changes, and
    checkpoints load. A call that runs several times in a pass is one layer. A second call of
    ``expose`` changes nothing.

    A layer drops when its call does, at the rate of the call until :func:`thinned.set_rate` or an
    assignment to ``p`` sets it. ``thinned.sampling`` and ``thinned.off`` override this. The layers
    draw the same noise distribution as torch, but not the numbers of torch's generator; only
    ``multi_head_attention_forward`` draws by itself, so keys do not reach it.

    Left as they are, and named in ``notes`` with file and line: masks that are drawn by hand, calls
    under activation checkpointing within one forward, and calls in the code of a container. Exposed
    modules run outside the graphs of ``torch.compile``, so ``fullgraph=True`` raises.

    Args:
        model: The model to change.
        *inputs: The inputs of the model by position.
        fix: Whether the mode of the module decides for all calls, so that calls that forgot
            ``training=self.training`` no longer drop in evaluation. By default they still do.
        layout: The axes of what ``F.dropout`` drops, where the examples are not first, such as
            ``"t b *"`` in a model with time first; see :class:`thinned.nn.Dropout`.
        forward: A function of the model and the inputs that runs it, as for :func:`thinned.find`.
        **named: The inputs of the model by name.

    Returns:
        The changes; ``undo()`` removes the layers.

    Raises:
        InputError: Where inputs are missing, the model is scripted, or ``layout`` does not name the
            axis of the examples.

    Example:
        >>> class Net(nn.Module):
        ...     def forward(self, x):
        ...         return F.dropout(x, 0.4, self.training)
        >>> net = Net()
        >>> edits = expose(net, torch.ones(2, 3))
        >>> net.functional_dropout_0
        Dropout(p=0.4, inplace=False)
    """
    if not inputs and not named and forward is None:
        raise InputError(
            "expose runs the model to see its calls; pass its inputs: thinned.expose(model, x)"
        )
    check_layout(layout)
    model = unwrap_compiled(model)
    notes, edits = [], []
    next_numbers: dict[int, int] = {}
    outside: dict[str, None] = {}
    for call in functional_calls(model, ModelCall(model, inputs, named, forward), outside):
        reason = _reason_not_exposed(call)
        if reason:
            notes.append(f"{call} {reason}")
            continue
        number = next_numbers.get(id(call.module), 0)
        while f"functional_dropout_{number}" in call.module._modules:
            number += 1
        next_numbers[id(call.module)] = number + 1
        layer = (
            _LAYERS[call.func](call.rates[0])
            if call.func in _LAYERS
            else ours.Dropout(call.rates[0], layout=layout)
        )
        layer.train(call.module.training)
        if len(set(call.rates)) > 1:
            notes.append(
                f"{call} has a rate of its own at each call; setting the rate of the layer ends "
                "that"
            )
        edits.append(
            CallInsertion(
                path=call.path,
                child=f"functional_dropout_{number}",
                module=call.module,
                layer=layer,
                call=call.site,
                handler=ExposedCall(layer, fix, call.line),
                line=call.line,
            )
        )
        if call.in_eval and not fix:
            notes.append(f"{call} drops in evaluation too; fix=True ends that")
    masks = (
        s
        for s in find(model, *inputs, forward=forward, **named)
        if s.kind == "mask" and _has_no_rate(model, s.name)
    )
    notes += [f"{c} is called outside the forward of a module; make a layer there" for c in outside]
    notes += [
        f"{s.function} at {s.where} draws a mask by hand; write thinned.functional.dropout there"
        for s in masks
    ]
    return apply_edits(edits, notes)


def _has_no_rate(model: nn.Module, name: str) -> bool:
    return rate_of(model.get_submodule(name)) is None


def _reason_not_exposed(call: _FunctionalCall) -> str:
    """Return why a call cannot be exposed, with the remedy; "" where it can."""
    if isinstance(call.module, CONTAINERS):
        return (
            f"is in the code of a {type(call.module).__name__}, which runs its children in turn; "
            "make it a layer there"
        )
    if any(file == CHECKPOINT for file, _, _ in call.site[1]):
        return (
            "is run again by a checkpoint inside its forward; make it a layer there, or checkpoint "
            "whole modules"
        )
    if call.func not in _EXPOSABLE:
        return "has no layer that does the same; call torch.nn.functional.dropout there"
    return ""


def functional_calls(
    model: nn.Module, run: ModelCall, outside: dict[str, None]
) -> list[_FunctionalCall]:
    """Return the calls of functional dropout that drop in training, in order.

    The model is run, and left as it was. Calls outside the forward of any module, as in a training
    step, are added to ``outside``.
    """
    paths = {id(m): name for name, m in model.named_modules()}
    calls: dict[tuple[int, CallSite], _FunctionalCall] = {}
    with preserve_state(model, (run.inputs, run.named)), run_all_layers(model):
        for training in (True, False):
            model.train(training)
            with _CallRecorder(calls, paths, training, outside):
                run(model)
    return [call for call in calls.values() if call.rates]


class _CallRecorder(TorchFunctionMode):
    """Records the calls of functional dropout that drop, by their call sites."""

    def __init__(
        self,
        calls: dict[Any, _FunctionalCall],
        paths: dict[int, str],
        training: bool,
        outside: dict[str, None],
    ) -> None:
        super().__init__()
        self.calls, self.paths, self.training, self.outside = calls, paths, training, outside

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS or func in (
            F.scaled_dot_product_attention,
            F.multi_head_attention_forward,
        ):
            kind, rate = classify_draw(func, args, kwargs) or ("", 0.0)
            if kind:
                self.record(func, float(rate or 0.0))
        return func(*args, **kwargs)

    def record(self, func: Any, rate: float) -> None:
        """Record a call, unless the module that makes it is a layer already."""
        module, call_path = find_caller()
        if module is None and self.training:
            self.outside[f"{function_name(func)} at {line_outside()}"] = None
        if module is None or id(module) not in self.paths or isinstance(module, DropoutModule):
            return
        if type(module).__module__.startswith("torch.nn.") or rate_of(module) is not None:
            return
        site = (func.__name__, call_path)
        new = _FunctionalCall(
            path=self.paths[id(module)], module=module, func=func, site=site, line=line_outside()
        )
        call = self.calls.setdefault((id(module), site), new)
        if self.training:
            call.rates.append(rate)
        else:
            call.in_eval = True
