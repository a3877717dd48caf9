"""The sites of a model outside thinned's layers, by what can reach them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from ..nn.module import DropoutModule
from .calls import InterceptedForward
from .model_access import check_not_scripted
from .rates import rate_of
from .reading import SourceDraw, mode_use, source_draws


@dataclass
class ForeignSites:
    """The sites of a model outside thinned's layers; keys of the mappings say which, for people.

    Args:
        names: The names of all modules.
        flags: Modules with a ``training`` flag that switches their dropout, and nothing else.
        callers: Modules with functional dropout that a flag does not switch.
        always: Modules that call functional dropout in evaluation too.
        drawing: All modules that draw.
        not_sampled: What :func:`thinned.sampling` does not reach.
        not_switched_off: What :func:`thinned.off` does not reach.
        not_seeded: What does not draw from torch's generator.
        unkeyed: The sites that drop in training: no random key reaches them.
        unsampled: The modules with sites that :func:`thinned.sampling` does not reach.
        at_rate_0: Whether there is dropout at rate 0.
        fused: Transformer layers of torch. In evaluation a fused kernel takes the place of the
            modules inside.
        is_compiled: Whether a module inside is compiled in place.
    """

    names: dict[nn.Module, str] = field(default_factory=dict)
    flags: dict[str, nn.Module] = field(default_factory=dict)
    callers: dict[str, nn.Module] = field(default_factory=dict)
    always: dict[str, nn.Module] = field(default_factory=dict)
    drawing: dict[str, nn.Module] = field(default_factory=dict)
    not_sampled: list[str] = field(default_factory=list)
    not_switched_off: list[str] = field(default_factory=list)
    not_seeded: list[str] = field(default_factory=list)
    unkeyed: list[str] = field(default_factory=list)
    unsampled: set[nn.Module] = field(default_factory=set)
    at_rate_0: bool = False
    fused: list[nn.Module] = field(default_factory=list)
    is_compiled: bool = False


def foreign_sites(model: nn.Module) -> ForeignSites:
    """Read the sites of a model outside thinned's layers. Nothing is run."""
    check_not_scripted(model)
    sites = ForeignSites()
    for name, module in model.named_modules():
        sites.names[module] = name
        if isinstance(module, nn.TransformerEncoderLayer):
            sites.fused.append(module)
        sites.is_compiled = sites.is_compiled or module._compiled_call_impl is not None
        if isinstance(module, DropoutModule):
            continue
        label = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) or _is_dropout_layer(module):
            if _never_drops(module):
                sites.at_rate_0 = True
            else:
                _add_layer(sites, label, module)
        else:
            _add_code(sites, label, module)
    return sites


def _add_layer(sites: ForeignSites, label: str, module: nn.Module) -> None:
    """Add a layer that does nothing but drop, attention or a recurrent network."""
    sites.drawing[label] = module
    sites.unkeyed.append(label)
    if _reads_training(module) and "training" in module.__dict__:
        sites.flags[label] = module
    else:
        sites.unsampled.add(module)
        sites.not_sampled.append(label)
        sites.not_switched_off.append(label)
    sites.not_seeded += [
        f"{label}: {draw.function} at {draw.where}"
        for draw in source_draws(module)
        if draw.kind == "python"
    ]


def _add_code(sites: ForeignSites, label: str, module: nn.Module) -> None:
    """Add the draws in the code of another module."""
    draws = list(_draws_left(module))
    if not draws:
        return
    use = mode_use(module)
    drops = [draw for draw in draws if draw.kind in ("dropout", "attention")]
    masks = [draw for draw in draws if draw.kind == "mask"]

    def named(found: list[SourceDraw]) -> list[str]:
        return [f"{label}: {draw.function} at {draw.where}" for draw in found]

    python = [draw for draw in draws if draw.kind == "python"]
    sites.not_seeded += named(python)
    if len(python) < len(draws):
        sites.drawing[label] = module
    sites.unkeyed += named([draw for draw in drops + masks if draw.in_train])
    if use.only_dropout and "training" in module.__dict__:
        sites.flags[label] = module
        if any(draw.in_eval for draw in drops):
            sites.always[label] = module
        if not use.reads_mode:
            sites.not_switched_off += named(masks)
        return
    if drops:
        sites.callers[label] = module
    hidden = [f"{label}: switched by its mode at {where}" for where in use.hidden]
    if masks or hidden:
        sites.unsampled.add(module)
    sites.not_sampled += named(masks) + hidden
    sites.not_switched_off += named(masks)


def _draws_left(module: nn.Module) -> Iterator[SourceDraw]:
    """The draws of a module that :func:`thinned.expose` did not make layers."""
    forward = module.__dict__.get("forward")
    exposed: set[str] = set()
    if isinstance(forward, InterceptedForward):
        exposed = {
            getattr(handler, "where", "")
            for (name, _), handler in forward.handlers.items()
            if name != "multi_head_attention_forward"  # torch draws there, without a key
        } - {""}
    for draw in source_draws(module):
        # Where the function of attention is chosen at run time, the call that drops is elsewhere.
        chosen = draw.kind == "attention" and not draw.function.startswith("F.")
        if draw.where not in exposed and not (exposed and chosen):
            yield draw


def _never_drops(module: nn.Module) -> bool:
    """Whether a dropout layer, attention or recurrent network has rate 0, or one layer only."""
    rate = rate_of(module)
    is_single = isinstance(module, nn.RNNBase) and module.num_layers == 1
    return is_single or (rate is not None and getattr(module, rate) == 0.0)


def _is_dropout_layer(module: nn.Module) -> bool:
    """Whether a module does nothing but drop: it has "drop" in its name, and nothing inside."""
    named = "drop" in type(module).__name__.lower()
    empty = next(module.children(), None) is None and next(module.parameters(), None) is None
    return isinstance(module, nn.modules.dropout._DropoutNd) or (named and empty)


def _reads_training(module: nn.Module) -> bool:
    if type(module).__module__.startswith("torch."):
        return True
    try:
        return "self.training" in inspect.getsource(type(module))
    except (OSError, TypeError):
        return False
