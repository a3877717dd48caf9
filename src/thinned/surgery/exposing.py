"""Functional dropout as layers, which rates, keys and modes reach."""

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
from ..nn.module import DropoutModule
from .attribute_rates import awake
from .calls import CHECKPOINT, Way, caller
from .draws import DROPOUTS, draw, given, name_of
from .edits import Edits, Tapped, done
from .model_access import plain
from .observe import line_outside, preserve_state
from .rates import rate_of
from .sites import find

_MADE: dict[Any, Callable[[float], Any]] = {  # what stands for a function; ours.Dropout for the rest
    F.dropout1d: ours.Dropout1d, F.dropout2d: ours.Dropout2d, F.dropout3d: ours.Dropout3d,
    F.alpha_dropout: ours.AlphaDropout, torch.alpha_dropout: ours.AlphaDropout, torch.alpha_dropout_: ours.AlphaDropout,
    F.feature_alpha_dropout: ours.FeatureAlphaDropout, torch.feature_alpha_dropout: ours.FeatureAlphaDropout,
    torch.feature_alpha_dropout_: ours.FeatureAlphaDropout,
    F.scaled_dot_product_attention: ours.AttentionDropout,
}  # fmt: skip
_PLAIN = {F.dropout, torch.dropout, torch.dropout_, F.multi_head_attention_forward}
_REACHED = _MADE.keys() | _PLAIN
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class _Call:
    """A call that drew in training: where, with which rates, and whether in evaluation too."""

    path: str
    owner: nn.Module
    func: Any
    key: tuple[str, Way]
    where: str
    rates: list[float] = field(default_factory=list)
    in_eval: bool = False

    @property
    def shown(self) -> str:
        """For people."""
        return f"{name_of(self.func)} at {self.where}"


class Through:
    """A call of functional dropout that goes through a layer.

    The layer's rate is the call's until somebody sets it; from then on it stays as set. ``fix``:
    the layer alone says whether it drops; else the call does, as before, unless a mode such as
    :func:`thinned.sampling` holds the layer.
    """

    def __init__(self, layer: Any, fix: bool) -> None:
        self.layer, self.fix, self.given = layer, fix, layer.p

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        kind, rate = draw(func, args, kwargs) or ("", 0.0)
        layer = self.layer
        if kind and layer.p == self.given != rate:
            layer.p = self.given = rate
        held = layer.mode_override
        mode = layer.mode() if self.fix else held or ("sample" if kind else "mean")
        layer.mode_override = mode
        try:
            if func is F.scaled_dot_product_attention:
                return _attention(layer, args, kwargs, mode)
            if func is F.multi_head_attention_forward:
                return _heads(layer, func, args, kwargs, mode)
            layer.inplace = bool(
                given(args, kwargs, 3, "inplace", False)
            ) or func.__name__.endswith("_")
            return layer(args[0] if args else kwargs["input"])
        finally:
            layer.mode_override = held


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


def _heads(layer: Any, func: Any, args: Any, kwargs: Any, mode: str) -> Any:
    """torch draws these itself: rate and mode reach them, keys do not."""
    args, kwargs = list(args), dict(kwargs)
    for place, name, value in ((10, "dropout_p", layer.p), (13, "training", mode == "sample")):
        if len(args) > place:
            args[place] = value
        else:
            kwargs[name] = value
    return func(*args, **kwargs)


def expose(model: nn.Module, *inputs: Any, fix: bool = False, **named: Any) -> Edits:
    """Make layers of a model's functional dropout, in place, so that rates, keys and modes reach
    it.

    The model is run with its inputs, in training and in evaluation, and calls of ``F.dropout`` and
    its like, of ``scaled_dot_product_attention`` and of ``multi_head_attention_forward`` that drop
    while training get a layer each: the child ``functional_dropout_0``, ``_1`` ... of the module in
    whose code they stand. No code and no name of a parameter changes; checkpoints load. A call that
    runs several times in a pass is one layer.

    A layer drops when its call says so, at the call's rate until :func:`thinned.set_rate` or an
    assignment to ``p`` sets it. Calls that also drop in evaluation go on doing so; ``fix=True``
    lets the module's mode decide, for all calls. What ``thinned.sampling`` and ``thinned.off`` say
    goes before both. The draws are thinned's: the law is the same, the numbers of torch's generator
    are not. Only ``multi_head_attention_forward`` draws by itself, out of the reach of keys.

    Left alone, and named in ``notes`` with file and line: masks that are drawn by hand, calls under
    activation checkpointing within one forward, and calls in a container's code. Exposed modules
    run outside the graphs of ``torch.compile``, which therefore refuses ``fullgraph=True``. Doing
    it again changes nothing; ``.undo()`` takes it back. Raises :class:`thinned.InputError` without
    inputs, and for a scripted model.
    """
    if not inputs and not named:
        raise InputError(
            "expose runs the model to see its calls; pass its inputs: thinned.expose(model, x)"
        )
    model = plain(model)
    calls = observe(model, inputs, named)
    notes, edits = [], []
    names: dict[int, int] = {}
    for call in calls:
        reason = _out_of_reach(call)
        if reason:
            notes.append(f"{call.shown} {reason}")
            continue
        count = names.get(id(call.owner), 0)
        while f"functional_dropout_{count}" in call.owner._modules:
            count += 1
        names[id(call.owner)] = count + 1
        layer = _MADE.get(call.func, ours.Dropout)(call.rates[0])
        layer.train(call.owner.training)
        if len(set(call.rates)) > 1:
            notes.append(
                f"{call.shown} has a rate of its own at each call; setting the layer's rate ends that"
            )
        name = f"functional_dropout_{count}"
        edits.append(
            Tapped(call.path, name, call.owner, layer, call.key, Through(layer, fix), call.where)
        )
        if call.in_eval and not fix:
            notes.append(f"{call.shown} drops in evaluation too; fix=True ends that")
    masks = (
        s for s in find(model, *inputs, **named) if s.kind == "mask" and _layerless(model, s.name)
    )
    notes += [
        f"{s.function} at {s.where} draws a mask by hand; write thinned.functional.dropout there"
        for s in masks
    ]
    return done(edits, notes)


def _layerless(model: nn.Module, name: str) -> bool:
    return rate_of(model.get_submodule(name)) is None


def _out_of_reach(call: _Call) -> str:
    if isinstance(call.owner, CONTAINERS):
        return f"stands in the code of a {type(call.owner).__name__}, whose children are run in turn; make it a layer there"
    if any(file == CHECKPOINT for file, _, _ in call.key[1]):
        return "is run again by a checkpoint inside its forward; make it a layer there, or checkpoint whole modules"
    if call.func not in _REACHED:
        return "has no layer that does the same; call torch.nn.functional.dropout there"
    return ""


def observe(model: nn.Module, inputs: Any, named: dict[str, Any]) -> list[_Call]:
    """The calls of functional dropout that drop in training, in order; the model is left as it was."""
    paths = {id(m): name for name, m in model.named_modules()}
    seen: dict[tuple[int, tuple[str, Way]], _Call] = {}
    with preserve_state(model, (inputs, named)), awake(model):
        for training in (True, False):
            model.train(training)
            with _Watch(seen, paths, training):
                model(*inputs, **named)
    return [call for call in seen.values() if call.rates]


class _Watch(TorchFunctionMode):
    def __init__(self, seen: dict[Any, _Call], paths: dict[int, str], training: bool) -> None:
        super().__init__()
        self.seen, self.paths, self.training = seen, paths, training

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS or func in (
            F.scaled_dot_product_attention,
            F.multi_head_attention_forward,
        ):
            kind, rate = draw(func, args, kwargs) or ("", 0.0)
            if kind:
                self.note(func, float(rate or 0.0))
        return func(*args, **kwargs)

    def note(self, func: Any, rate: float) -> None:
        owner, way = caller()
        if owner is None or id(owner) not in self.paths or isinstance(owner, DropoutModule):
            return
        if type(owner).__module__.startswith("torch.nn.") or rate_of(owner) is not None:
            return  # a layer already
        key = (func.__name__, way)
        call = _Call(self.paths[id(owner)], owner, func, key, line_outside())
        call = self.seen.setdefault((id(owner), key), call)
        if self.training:
            call.rates.append(rate)
        else:
            call.in_eval = True
