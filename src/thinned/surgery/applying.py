"""Applying a policy to a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import nn as ours
from .. import presets
from .._errors import InputError, unknown
from ..algebra.drop import Drop
from ..algebra.schedule import SCHEDULES
from ..nn.layer_of import layer_of
from ..nn.module import dropout_modules
from ..nn.spec_layer import SpecLayer
from .calls import CallSite
from .edits import (
    AttributeChange,
    CallInsertion,
    Edits,
    Insertion,
    Swap,
    reset_compiled_graphs,
)
from .exposing import CONTAINERS
from .flow import activations, feeds_batch_norm, layer_after
from .insertion import can_insert_at, insertions, module_called_at
from .model_access import unwrap_compiled
from .model_call import Forward
from .policies import AUTOMATIC, automatic
from .policy import At, Policy, PolicyRule
from .rates import rate_of
from .replacing import HOOKS
from .targets import targets
from .trace import Trace, trace_model

_Edit = Insertion | AttributeChange | Swap | CallInsertion


def apply(
    model: nn.Module,
    policy: Policy | str | Path,
    *inputs: Any,
    rate: float | None = None,
    forward: Forward | None = None,
    **named: Any,
) -> Edits:
    """Put dropout into ``model`` as a policy says, in place.

    Rules are carried out in order, each in the model that those before it have changed; all are
    carried out or none. Each place has one layer: where there is one already, its rate is set, so a
    second call changes nothing. A module that is called at several places has one layer for all. No
    name of a parameter changes, parameters remain the same objects, and compiled models compile
    again at their next call. With inputs, ``notes`` name the layers that come directly before batch
    normalization (Li et al. 2019).

    Args:
        model: The model to change.
        policy: A :class:`Policy`; a JSON file with one (that of a study too); or the name of an
            automatic policy: "hidden", "head", "depth", "input" or "paper". The functions of these
            names in ``thinned.surgery.policies`` describe them, and return them as records.
        *inputs: The inputs of the model by position. The model is run with them once, for automatic
            policies and for rules with places and calls.
        rate: The rate of all places, in [0, 1]; for "depth" that of the deepest. None keeps the
            rates of the policy.
        forward: A function of the model and the inputs that runs it, as for :func:`thinned.find`.
        **named: The inputs of the model by name.

    Returns:
        The changes; ``notes`` have the reasons and sources, and ``undo()`` takes all back.

    Raises:
        InputError: Where the policy is unknown, or a rule cannot be carried out in this model; the
            message names the rule.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> apply(model, "hidden", torch.ones(3, 4), rate=0.3)
        after 1: Dropout(p=0.3, inplace=False)
        note: after hidden activations: Srivastava et al. 2014
    """
    model = unwrap_compiled(model)
    if inputs and rate is None and isinstance(inputs[0], (int, float)):
        raise InputError(
            f"inputs are those of the model; a rate is given by name: rate={inputs[0]}"
        )
    if isinstance(rate, SCHEDULES):
        raise InputError(
            f"rate of apply is a number, but got {rate!r}; give the layers the schedule "
            "afterwards: thinned.set_rate(model, schedule)"
        )
    trace, has_inputs = None, bool(inputs or named or forward)
    if isinstance(policy, str) and policy in AUTOMATIC:
        trace = (
            trace_model(model, inputs, named, forward)
            if has_inputs and (rate is None or policy != "paper")
            else None
        )
        policy = automatic(policy, trace or model, inputs, named, rate)
    else:
        if isinstance(policy, (str, Path)):
            policy = _load(policy)
        if not isinstance(policy, Policy):
            raise InputError(
                f"policy has to be a Policy, a file or one of {', '.join(AUTOMATIC)}, "
                f"but got {policy!r}"
            )
        policy = policy if rate is None else policy.at(rate)
    if trace is None and has_inputs:
        trace = trace_model(model, inputs, named, forward)
    edits: list[_Edit] = []
    try:
        for number, rule in enumerate(policy.rules, 1):
            try:
                for edit in _edits_of_rule(model, rule, trace):
                    edits.append(edit)
                    edit.do()
                    _check_runs(model, edit, trace)
            except InputError as error:
                raise InputError(f"rule {number} ({rule}): {error}") from None
        notes = (*policy.notes, *_batch_norm_notes(trace, edits))
    except BaseException:
        Edits(tuple(edits)).undo()
        raise
    notes = tuple(dict.fromkeys((*notes, *_key_notes(model, edits))))
    result = Edits(_net_edits(edits), notes)
    reset_compiled_graphs(result.edits)
    return result


def _check_runs(model: nn.Module, edit: _Edit, trace: Trace | None) -> None:
    """Raise where a layer was inserted at the model itself, which is run by another function."""
    at_model = isinstance(edit, (Insertion, CallInsertion)) and edit.module is model
    if at_model and trace is not None and not trace.calls.get(""):
        raise InputError(
            "a layer at the model itself would never run, because a function runs this model and "
            "not its forward; name a module"
        )


def _key_notes(model: nn.Module, edits: list[_Edit]) -> list[str]:
    """Return a note where layers were added to a keyed model: its key does not reach them."""
    if any(not isinstance(e, AttributeChange) for e in edits) and any(
        layer.model_key is not None for _, layer in dropout_modules(model)
    ):
        return [
            "the key of this model does not reach the new layers; remove() it and call "
            "thinned.key again"
        ]
    return []


def _net_edits(edits: list[_Edit]) -> tuple[_Edit, ...]:
    """Join the edits of what was set or replaced several times, from the first state to the last;
    an edit that restores the first state is removed.
    """
    found: dict[Any, _Edit] = {}
    for edit in edits:
        place: Any = id(edit)
        if isinstance(edit, AttributeChange):
            place = id(edit.holder), edit.attribute
            first = found.get(place)
            edit = replace(edit, old=first.old) if isinstance(first, AttributeChange) else edit
        elif isinstance(edit, Swap):
            place = id(edit.parent), edit.child
            first = found.get(place)
            edit = replace(edit, old=first.old) if isinstance(first, Swap) else edit
        found[place] = edit
    for place, edit in list(found.items()):
        if isinstance(edit, AttributeChange) and edit.old == edit.new:
            del found[place]
        elif (
            isinstance(edit, Swap)
            and isinstance(edit.new, SpecLayer)
            and _has_spec(edit.old, edit.new.base_spec)
        ):
            edit.undo()
            del found[place]
    return tuple(found.values())


def _has_spec(module: nn.Module, spec: Drop) -> bool:
    """Return whether the module is a layer of exactly this spec already."""
    return isinstance(module, SpecLayer) and module.spec == spec and module.schedule is None


def _load(policy: str | Path) -> Policy:
    if isinstance(policy, str) and not policy.endswith(".json") and not Path(policy).exists():
        raise unknown("policy", policy, AUTOMATIC)
    return Policy.load(policy)


def _edits_of_rule(model: nn.Module, rule: PolicyRule, trace: Trace | None) -> Iterator[_Edit]:
    """Yield the edits of a rule; each has to be made before the next one is requested."""
    if rule.do == "set rate":
        for name, module in _modules_at(
            model, rule, trace, lambda m: rate_of(m) is not None, "layer with a rate"
        ):
            yield from _rate_edits(name, module, rule.rate)
    elif rule.do == "replace":
        fits, what = (
            (_is_dropout, "dropout layer")
            if rule.where is None
            else (_is_replaceable, "layer to replace")
        )
        for name, module in _modules_at(model, rule, trace, fits, what):
            yield from _replacement_edits(model, name, module, rule)
    elif isinstance(rule.where, At) and rule.where.kind == "call":
        yield from _call_edits(model, rule, rule.where, trace)
    elif isinstance(rule.where, At) and rule.where.kind == "place" and rule.where.name != "input":
        for at, layer in _hidden_places(rule.where, trace):
            yield from _edits_of_rule(
                model,
                _rule_for_layer(model, rule, layer) if layer else replace(rule, where=at),
                trace,
            )
    else:
        before = rule.do == "insert before"
        for name, module in _modules_at(model, rule, trace, can_insert_at, "module"):
            yield from insertions(
                [(name, module)], lambda *_: layer_of(rule.resolved_spec()), before
            ) or _inserted_layer_edits(name, module, before, rule)


def _rule_for_layer(model: nn.Module, rule: PolicyRule, layer: str) -> PolicyRule:
    """Return the rule for a place that has a dropout layer already: set its rate, or replace it
    where the rule asks for another kind of dropout.
    """
    spec, module = rule.resolved_spec(), model.get_submodule(layer)
    same = isinstance(module, SpecLayer) and module.spec == spec.at(module.p)
    if same or spec == presets.dropout(spec.rate) or not _is_dropout(module):
        return PolicyRule("set rate", At("name", layer), spec.rate)
    return PolicyRule("replace", At("name", layer), None, spec)


def _inserted_layer_edits(
    name: str, module: nn.Module, before: bool, rule: PolicyRule
) -> Iterator[_Edit]:
    """Set the layer that an earlier call inserted there to the rate of the rule."""
    child = "dropout_before" if before else "dropout_after"
    layer = module_called_at(name, module, before)._modules.get(child)
    if isinstance(layer, nn.Module):
        yield from _rate_edits(f"{name}.{child}".lstrip("."), layer, rule.resolved_spec().rate)


def _rate_edits(name: str, module: nn.Module, rate: float | None) -> Iterator[AttributeChange]:
    attribute = rate_of(module)
    if attribute is not None and rate is not None and getattr(module, attribute) != rate:
        yield AttributeChange(
            path=name,
            holder=module,
            attribute=attribute,
            old=getattr(module, attribute),
            new=rate,
        )


def _modules_at(
    model: nn.Module,
    rule: PolicyRule,
    trace: Trace | None,
    fits: Callable[[nn.Module], bool],
    what: str,
) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the modules that the ``where`` of a rule selects."""
    where = rule.where
    if not isinstance(where, At):
        return targets(model, where, fits, what)
    modules = dict(model.named_modules())
    if where.kind == "class":
        found = [(n, m) for n, m in modules.items() if fits(m) and _is_instance(m, where.name)]
        if not found:
            raise InputError(f"this model has no {what} of class {where.name!r}")
        return found
    if where.kind == "place":
        if where.name == "input":
            return [("", model)]
        if where.name == "hidden weights" and trace is not None:
            live = trace.reaches_weights()
            names = [
                e.module
                for e in trace.events
                if e.weighted and e.module and any(v.number in live for v in e.results)
            ]
            return [(n, modules[n]) for n in dict.fromkeys(names) if fits(modules[n])]
        if trace is None:
            raise InputError(
                f"the place {where.name!r} is found by running the model; pass its inputs"
            )
        raise InputError(
            f"the place {where.name!r} has no {what} of its own; name modules or classes"
        )
    if where.name not in modules:
        raise unknown("module", where.name, modules)
    if not fits(modules[where.name]):
        raise InputError(f"{where.name or 'the model'} is not a {what}")
    return [(where.name, modules[where.name])]


def _is_instance(module: nn.Module, name: str) -> bool:
    """Return whether a module is of the class ``name``, by its own or its qualified name."""
    package, _, last = name.rpartition(".")
    # a public name such as torch.nn.ReLU, which differs from that of the file that defines it
    public = getattr(sys.modules.get(package), last, None)
    return any(
        c is public or name in (c.__name__, f"{c.__module__}.{c.__qualname__}")
        for c in type(module).__mro__
    )


def _hidden_places(where: At, trace: Trace | None) -> list[tuple[At, str | None]]:
    """Return the hidden activations that a place such as "hidden" or "hidden 1 of 2" names, each
    with the dropout layer that reads it already, or None.
    """
    words = where.name.split()
    shape = words[:1] == ["hidden"] and (len(words) == 1 or (len(words) == 4 and words[2] == "of"))
    if not shape or not all(w.isdigit() for w in words[1::2]):
        raise InputError(
            f"a place is 'input', 'hidden' or such as 'hidden 1 of 2', but got {where.name!r}"
        )
    if trace is None:
        raise InputError(f"the place {where.name!r} is found by running the model; pass its inputs")
    found = [(at, layer_after(trace, value)) for at, value in activations(trace)]
    if len(words) == 1:
        return found
    number, count = int(words[1]), int(words[3])
    if len(found) != count or not 1 <= number <= count:
        names = ": " + ", ".join(str(at) for at, _ in found[:6]) if found else ""
        raise InputError(
            f"the policy is for {count} hidden activations, and this model has {len(found)}{names}"
            "; give rules with names of this model's modules"
        )
    return [found[number - 1]]


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd)


def _is_replaceable(module: nn.Module) -> bool:
    weights = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
    return _is_dropout(module) or isinstance(module, (ours.DropConnect, *weights))


def _replacement_edits(
    model: nn.Module, name: str, module: nn.Module, rule: PolicyRule
) -> list[_Edit]:
    """Return the edits that replace a module everywhere in the tree, or set its rate where it is
    of the wanted kind already.
    """
    spec = rule.resolved_spec()
    if isinstance(module, ours.DropConnect) and "connect" in spec.name:
        return list(_rate_edits(name, module, spec.rate))
    if isinstance(module, nn.modules.dropout._DropoutNd):
        if rule.rate is None and not isinstance(rule.spec, Drop):
            spec = spec.at(module.p)
        if _has_spec(module, spec):
            return []
        if isinstance(getattr(module, "schedule", None), SCHEDULES):
            raise InputError(f"{name} has a schedule; set its rate instead")
        new: nn.Module = layer_of(spec)
    elif rule.spec is None or "connect" not in spec.name:
        raise InputError(
            f"{name} is a {type(module).__name__}, which only a drop of weights ('drop_connect') "
            "can replace"
        )
    else:
        new = ours.DropConnect(module, spec.rate)
    if any(getattr(module, hooks) for hooks in HOOKS):
        raise InputError(
            f"{name} has hooks of its own, which would be lost; remove them or leave the layer out"
        )
    new.train(module.training)
    swaps: list[_Edit] = [
        Swap(path=f"{path}.{child}".lstrip("."), parent=parent, child=child, old=module, new=new)
        for path, parent in model.named_modules(remove_duplicate=True)
        for child, m in parent._modules.items()
        if m is module
    ]
    if not swaps:
        raise InputError(
            "the model itself cannot be replaced; pass a module that contains it, such as "
            "torch.nn.Sequential(model)"
        )
    return swaps


class _DropAtCall:
    """A call handler that applies a layer to the result of a call, or to one of its operands."""

    def __init__(self, layer: nn.Module, operand: int | None) -> None:
        self.layer, self.operand = layer, operand

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.operand is None:
            return self.layer(func(*args, **kwargs))
        args = list(args)
        args[self.operand] = self.layer(args[self.operand])
        return func(*args, **kwargs)


def _call_edits(
    model: nn.Module, rule: PolicyRule, where: At, trace: Trace | None
) -> Iterator[_Edit]:
    """Yield the edit that inserts a layer at a call, or sets the rate of the layer there."""
    modules = dict(model.named_modules())
    if where.name not in modules:
        raise unknown("module", where.name, modules)
    module = modules[where.name]
    child = f"dropout_at_{where.function.strip('_')}_{where.number}" + (
        "" if where.operand is None else f"_{where.operand}"
    )
    layer = module._modules.get(child)
    if isinstance(layer, nn.Module):
        yield from _rate_edits(
            f"{where.name}.{child}".lstrip("."), layer, rule.resolved_spec().rate
        )
        return
    if trace is None:
        raise InputError(
            "a place in a module's code is found by running the model; pass its inputs"
        )
    if isinstance(module, CONTAINERS):
        raise InputError(
            f"{where.name} is a {type(module).__name__}, which runs its children in turn; "
            "name one of those"
        )
    lines: dict[CallSite, str] = {}
    for event in trace.events:
        if event.module == where.name and event.site[0] == where.function:
            lines.setdefault(event.site, event.where)
    if where.number >= len(lines):
        raise InputError(
            f"{where.name or 'the model'} calls {where.function} at {len(lines)} places, "
            "counted from 0"
        )
    site, line = list(lines.items())[where.number]
    new = layer_of(rule.resolved_spec())
    new.train(module.training)
    yield CallInsertion(
        path=where.name,
        child=child,
        module=module,
        layer=new,
        call=site,
        handler=_DropAtCall(new, where.operand),
        line=line,
    )


def _batch_norm_notes(trace: Trace | None, edits: list[_Edit]) -> list[str]:
    """Return notes on inserted layers that come directly before batch normalization."""
    notes = []
    for edit in edits:
        if trace is None or not isinstance(edit, Insertion) or edit.before:
            continue
        path = next((n for n, m in trace.model.named_modules() if m is edit.module), edit.path)
        if any(path in v.outputs_of and feeds_batch_norm(trace, v) for v in trace.values):
            notes.append(
                f"dropout after {edit.path} comes directly before batch normalization, "
                "and shifts the variance that it uses in evaluation (Li et al. 2019)"
            )
    return notes
