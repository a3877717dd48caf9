"""Rules on where and what a model draws while training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from ...nn.module import DropoutModule
from ..finding import Finding
from .check_run import CheckRun
from .evaluation import in_file, location
from .record import DROPOUT_KINDS, DrawRecord, PassRecord, looks_like_dropout, named_rate

ALPHA = 1e-6
TORCH_DROPOUTS = {  # those that zero and scale by 1 / (1 - p)
    "F.dropout",
    "F.dropout1d",
    "F.dropout2d",
    "F.dropout3d",
    "torch.dropout",
    "torch.feature_dropout",
}
_PLAIN_SPECS = {"dropout", "spatial_dropout", "gaussian_dropout"}


def channels_of_sequences(run: CheckRun) -> Iterator[Finding]:
    """L10: F.dropout2d, or a Dropout2d layer of torch or of ours, is called with a
    three-dimensional input. No statistics.
    """
    for calls in run.training_before[0].by_place().values():
        draw = calls[0]
        channels = draw.function == "F.dropout2d" or (
            draw.layer is not None and draw.function == "Dropout2d"
        )
        if channels and draw.shape is not None and len(draw.shape) == 3:
            size = "x".join(map(str, draw.shape))
            text = (
                f"Dropout2d reads an input of {size} as [batch, channels, length], so it drops "
                "all of axis 2 at some positions of axis 1"
            )
            yield Finding("L10", text, evidence=(("dimensions", 3.0),), **location(draw))


def one_layer(run: CheckRun) -> Iterator[Finding]:
    """L11: a recurrent network has one layer and a dropout above 0."""
    for name, module in run.model.named_modules():
        if isinstance(module, nn.RNNBase) and module.num_layers == 1 and module.dropout > 0:
            kind = type(module).__name__
            text = f"{kind} has one layer, so its dropout of {module.dropout:g} never acts"
            evidence = (("rate", float(module.dropout)),)
            yield Finding("L11", text, site=name, evidence=evidence)


def left_in_evaluation(run: CheckRun) -> Iterator[Finding]:
    """L21, modes: the model is in training mode when it is passed, but one of its parts, which
    contains a dropout with a rate above 0, is in evaluation mode.

    A part is left out if all its parameters are frozen, because a fixed feature extractor may be in
    evaluation mode on purpose. Nothing is reported for a model that is passed in evaluation mode;
    ``unchecked`` says so.
    """
    if not run.model.training:
        why = "the model was passed in evaluation mode, which hides parts left in evaluation"
        run.unchecked.append(("L21", why))
        return
    for name, part in _topmost_in_evaluation("", run.model):
        parameters = list(part.parameters())
        frozen = parameters and not any(p.requires_grad for p in parameters)
        layers = [m for m in part.modules() if _has_active_rate(m)]
        if layers and not frozen:
            noun = "layer" if len(layers) == 1 else "layers"
            text = (
                "the model is in training mode, but this part is in evaluation mode, with "
                f"{len(layers)} dropout {noun} (rate {_rate(layers[0]):g})"
            )
            yield Finding("L21", text, site=name)


def _topmost_in_evaluation(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if not module.training:
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _topmost_in_evaluation(f"{name}.{child_name}" if name else child_name, child)


def _rate(module: nn.Module) -> float:
    named = named_rate(module)
    return named[1] if named else float(getattr(module, "dropout", 0.0))


def _has_active_rate(module: nn.Module) -> bool:
    """Whether the module is a dropout with a rate that can act."""
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    layer = (
        isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd))
        or "drop" in type(module).__name__.lower()
    )
    return layer and named_rate(module) is not None


def never_draws(run: CheckRun) -> Iterator[Finding]:
    """L21, draws: a dropout with a rate in (0, 1) runs, but draws in no training pass.

    Signal: a layer that looks like dropout ran in every pass, neither it nor a part of it drew,
    and it returned its input; or a dropout function with a rate was switched off at every call
    while its module was in training mode. After ``model.train()``, a layer that is still in
    evaluation mode counts too, unless all parameters of its parent are frozen.
    """
    drew = {d.name for r in run.training for d in r.draws}
    switched_on = {d.place[2:] for r in run.training for d in r.draws}
    reported = set()
    switched_off = [call for r in run.training for call in r.switched_off]
    for name, function, where, rate in dict.fromkeys(switched_off):
        if (function, where) not in switched_on and _trains(run.model, name):
            reported.add(name)
            text = f"{function} with rate {rate:g} is switched off while the model trains"
            evidence = (("rate", rate),)
            yield Finding("L21", text, site=name, evidence=evidence, **in_file(where))
    for name, module in run.model.named_modules():
        draws_inside = any(d == name or d.startswith(f"{name}.") or not name for d in drew)
        ran = all(name in r.modules for r in run.training)
        if name in reported or draws_inside or not ran:
            continue
        if not _has_active_rate(module) or isinstance(module, nn.RNNBase):
            continue
        if _returns_its_input(run, name, module) and _trains(run.model, name):
            rate = _rate(module)
            text = f"a layer of rate {rate:g} returns its input in every training pass"
            yield Finding("L21", text, site=name, evidence=(("rate", rate),))


def _returns_its_input(run: CheckRun, name: str, module: nn.Module) -> bool:
    """Whether a layer that never drew left its input as it was, without being asked to."""
    if isinstance(module, DropoutModule):
        return module.mode_override is None and not module.training
    if isinstance(module, nn.MultiheadAttention):
        return True
    digests = [pair for r in run.training for pair in r.digests.get(name, [])]
    return bool(digests) and all(before == after for before, after in digests)


def _trains(model: nn.Module, name: str) -> bool:
    """Whether the nearest parent that has parameters has any to train."""
    while True:
        parameters = list(model.get_submodule(name).parameters())
        if parameters or not name:
            return not parameters or any(p.requires_grad for p in parameters)
        name = name.rpartition(".")[0]


def mask_reused(run: CheckRun) -> Iterator[Finding]:
    """L18: a site draws the same mask in all training passes, although each has another seed.

    Signal, without statistics: the global generators are in the same state before the draw of the
    site in every pass, so the forward pass seeds them. Or the masks are equal bit by bit where
    chance would make them equal with a probability below 1e-6: (p^n + (1 - p)^n)^entries for n
    passes. Or a layer that looks like dropout drew in the first pass only, or never, and the same
    elements are dropped in all passes. Keyed and frozen layers of ours, which repeat their masks on
    purpose, are left out.
    """
    passes = [r.by_place() for r in run.training]
    for place, calls in passes[0].items():
        draw = calls[0]
        layer = draw.layer
        if layer is not None and any(
            x is not None for x in (layer.model_key, layer.frozen_key, layer.tape)
        ):
            continue
        module = run.training_before[0].by_name.get(draw.name)
        if draw.kind not in DROPOUT_KINDS and not looks_like_dropout(module):
            continue
        draws = [p[place][0] for p in passes if place in p]
        if len(draws) >= 4:
            if _one_state(draws) or _one_mask(draws):
                text = (
                    f"{draw.function} draws the same mask in {len(draws)} training passes with "
                    "different seeds"
                )
                evidence = (("passes", float(len(draws))),)
                yield Finding("L18", text, evidence=evidence, **location(draw))
        elif (
            len(draws) == 1
            and draw.kind in (*DROPOUT_KINDS, "noise")
            and _times_run(run.training[1:], draw.name) >= 4
        ):
            text = f"{draw.function} draws in the first training pass and never again"
            yield Finding("L18", text, **location(draw))
    yield from _fixed_masks(run)


def _one_state(draws: list[DrawRecord]) -> bool:
    states = {d.state for d in draws}
    return len(states) == 1 and "" not in states


def _one_mask(draws: list[DrawRecord]) -> bool:
    masks, draw = {d.mask for d in draws}, draws[0]
    if len(masks) != 1 or "" in masks or not draw.entries:
        return False
    if draw.rate is None or not 0 < draw.rate < 1:
        return False
    n = len(draws)
    return draw.entries * math.log(draw.rate**n + (1.0 - draw.rate) ** n) < math.log(ALPHA)


def _times_run(records: list[PassRecord], name: str) -> int:
    return sum(name in r.modules for r in records)


def _fixed_masks(run: CheckRun) -> Iterator[Finding]:
    """Layers that never draw and yet drop: their mask was drawn once, before the check."""
    drew = {d.name for r in run.training for d in r.draws}
    for name, module in run.model.named_modules():
        if not looks_like_dropout(module) or isinstance(module, DropoutModule):
            continue
        if any(d == name or d.startswith(f"{name}.") for d in drew) or named_rate(module) is None:
            continue
        if any(True for _ in module.children()) or next(module.parameters(), None) is not None:
            continue
        training = [pair for r in run.training for pair in r.digests.get(name, [])]
        evaluation = [pair for r in run.evaluations for pair in r.digests.get(name, [])]
        changes = training and all(before != after for before, after in training)
        if changes and evaluation and all(before == after for before, after in evaluation):
            text = (
                "the mask is fixed: the layer draws in no training pass, but changes its input in "
                "all of them and in no evaluation"
            )
            yield Finding("L18", text, site=name)


def selu(run: CheckRun) -> Iterator[Finding]:
    """L22: ordinary dropout is applied directly to the output of SELU, or alpha dropout draws in a
    pass in which no SELU runs.

    Signal: the tensor that dropout receives is the one that F.selu returned; or alpha dropout
    draws and F.selu was never called. No statistics.
    """
    record = run.training_before[0]
    for calls in record.by_place().values():
        draw = calls[0]
        spec_name = getattr(draw.spec, "name", "")
        alpha = "alpha" in draw.function.lower() or "alpha" in spec_name
        ordinary = draw.function in TORCH_DROPOUTS or spec_name in _PLAIN_SPECS
        if alpha and not record.selu_ran:
            text = f"{draw.function} draws in a model without SELU"
            yield Finding("L22", text, **location(draw))
        elif ordinary and any(d.after_selu for d in calls):
            text = f"{draw.function} is applied directly to the output of SELU"
            yield Finding("L22", text, **location(draw))
