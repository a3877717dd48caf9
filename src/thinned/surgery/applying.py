"""A policy in a model."""

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
from .calls import Way
from .edits import Edits, Insertion, Reset, Swap, Tapped, forget
from .exposing import CONTAINERS
from .flow import activations, before_norm, has_layer
from .insertion import called, insertions, placeable
from .model_access import plain
from .policies import AUTOMATIC, automatic
from .policy import At, Policy, PolicyRule
from .rates import rate_of
from .replacing import HOOKS
from .targets import targets
from .trace import Trace, trace

_Edit = Insertion | Reset | Swap | Tapped


def apply(
    model: nn.Module,
    policy: Policy | str | Path,
    *inputs: Any,
    rate: float | None = None,
    **named: Any,
) -> Edits:
    """Put dropout into ``model`` as a policy says, in place.

    ``policy``: a :class:`thinned.Policy`, or a file that one was saved in (a study's
    ``policy.json`` too), or the name of an automatic one: "hidden", "head", "depth", "input", or
    "paper"; what they do is told at the functions of these names in ``thinned.surgery.policies``,
    which give them as records to read, save and change. ``inputs``, ``named``: the model's, with
    which it is run to see what automatic policies and rules on places and calls mean. ``rate``: of
    all places; for "depth" of the deepest one; None leaves the policy's own.

    Rules are done in order, each in the model that those before it left. Each place has one layer,
    and where one is already its rate is set, so doing it again changes nothing. A module that is
    called at several places has one layer for all. No name of a parameter changes, parameters stay
    the same objects, and compiled models are compiled anew at their next call. With inputs,
    ``notes`` say where dropout comes directly before batch normalisation (Li et al. 2019). All
    rules are done or none; ``.undo()`` takes them back.

    Raises :class:`thinned.InputError` for a policy that is not known or means nothing in this
    model; it names the rule.
    """
    model = plain(model)
    if inputs and rate is None and isinstance(inputs[0], (int, float)):
        raise InputError(f"inputs are the model's; a rate is given by name: rate={inputs[0]}")
    seen = None
    if isinstance(policy, str) and policy in AUTOMATIC:
        seen = (
            trace(model, inputs, named)
            if (inputs or named) and (rate is None or policy != "paper")
            else None
        )
        policy = automatic(policy, seen or model, inputs, named, rate)
    else:
        if isinstance(policy, (str, Path)):
            policy = _loaded(policy)
        if not isinstance(policy, Policy):
            raise InputError(
                f"policy has to be a Policy, a file or one of {', '.join(AUTOMATIC)}, but got {policy!r}"
            )
        policy = policy if rate is None else policy.at(rate)
    if seen is None and (inputs or named):
        seen = trace(model, inputs, named)
    edits: list[_Edit] = []
    try:
        for number, rule in enumerate(policy.rules, 1):
            try:
                for edit in _of_rule(model, rule, seen):
                    edits.append(edit)
                    edit.do()
            except InputError as error:
                raise InputError(f"rule {number} ({rule}): {error}") from None
        notes = (*policy.notes, *_shifted(seen, edits))
    except BaseException:
        Edits(tuple(edits)).undo()
        raise
    made = Edits(_net(edits), tuple(dict.fromkeys((*notes, *_unkeyed(model, edits)))))
    forget(made.edits)
    return made


def _unkeyed(model: nn.Module, edits: list[_Edit]) -> list[str]:
    """Layers that came after the model's key belong to none."""
    if any(not isinstance(e, Reset) for e in edits) and any(
        host.owner is not None for _, host in dropout_modules(model)
    ):
        return [
            "the model's key does not know the new layers; remove() it and call thinned.key again"
        ]
    return []


def _net(edits: list[_Edit]) -> tuple[_Edit, ...]:
    """Of what was set or replaced several times the first and the last, and nothing where they are
    the same.
    """
    found: dict[Any, _Edit] = {}
    for edit in edits:
        place: Any = id(edit)
        if isinstance(edit, Reset):
            place = id(edit.module), edit.attribute
            first = found.get(place)
            edit = replace(edit, before=first.before) if isinstance(first, Reset) else edit
        elif isinstance(edit, Swap):
            place = id(edit.parent), edit.name
            first = found.get(place)
            edit = replace(edit, before=first.before) if isinstance(first, Swap) else edit
        found[place] = edit
    for place, edit in list(found.items()):
        if isinstance(edit, Reset) and edit.before == edit.after:
            del found[place]
        elif (
            isinstance(edit, Swap)
            and isinstance(edit.after, SpecLayer)
            and _is(edit.before, edit.after.base_spec)
        ):
            edit.undo()
            del found[place]
    return tuple(found.values())


def _is(module: nn.Module, spec: Drop) -> bool:
    """Is it the layer of this point already?"""
    return isinstance(module, SpecLayer) and module.spec == spec and module.schedule is None


def _loaded(policy: str | Path) -> Policy:
    if isinstance(policy, str) and not policy.endswith(".json") and not Path(policy).exists():
        raise unknown("policy", policy, AUTOMATIC)
    return Policy.load(policy)


def _of_rule(model: nn.Module, rule: PolicyRule, seen: Trace | None) -> Iterator[_Edit]:
    """What a rule changes in the model as it is; each change is done before the next is asked for."""
    if rule.do == "set rate":
        for name, module in _found(
            model, rule, seen, lambda m: rate_of(m) is not None, "layer with a rate"
        ):
            yield from _reset(name, module, rule.rate)
    elif rule.do == "replace":
        fits, what = (
            (_drops, "dropout layer") if rule.where is None else (_replaceable, "layer to replace")
        )
        for name, module in _found(model, rule, seen, fits, what):
            yield from _swapped(model, name, module, rule)
    elif isinstance(rule.where, At) and rule.where.kind == "call":
        yield from _tapped(model, rule, rule.where, seen)
    elif isinstance(rule.where, At) and rule.where.kind == "place" and rule.where.name != "input":
        for at, layer in _hidden(rule.where, seen):
            yield from _of_rule(
                model, _at_layer(model, rule, layer) if layer else replace(rule, where=at), seen
            )
    else:
        first = rule.do == "insert before"
        for name, module in _found(model, rule, seen, placeable, "module"):
            yield from insertions(
                [(name, module)], lambda *_: layer_of(rule.resolved_spec()), first
            ) or _already(name, module, first, rule)


def _at_layer(model: nn.Module, rule: PolicyRule, layer: str) -> PolicyRule:
    """A rule for a place whose dropout layer is there: its rate, or another kind in its place."""
    spec, module = rule.resolved_spec(), model.get_submodule(layer)
    same = isinstance(module, SpecLayer) and module.spec == spec.at(module.p)
    if same or spec == presets.dropout(spec.rate) or not _drops(module):
        return PolicyRule("set rate", At("name", layer), spec.rate)
    return PolicyRule("replace", At("name", layer), None, spec)


def _already(name: str, module: nn.Module, first: bool, rule: PolicyRule) -> Iterator[_Edit]:
    """The layer that stands there takes the rule's rate."""
    child = "dropout_before" if first else "dropout_after"
    layer = called(name, module, first)._modules.get(child)
    if isinstance(layer, nn.Module):
        yield from _reset(f"{name}.{child}".lstrip("."), layer, rule.resolved_spec().rate)


def _reset(name: str, module: nn.Module, rate: float | None) -> Iterator[Reset]:
    attribute = rate_of(module)
    if attribute is not None and rate is not None and getattr(module, attribute) != rate:
        yield Reset(name, module, attribute, getattr(module, attribute), rate)


def _found(
    model: nn.Module,
    rule: PolicyRule,
    seen: Trace | None,
    fits: Callable[[nn.Module], bool],
    what: str,
) -> list[tuple[str, nn.Module]]:
    where = rule.where
    if not isinstance(where, At):
        return targets(model, where, fits, what)
    modules = dict(model.named_modules())
    if where.kind == "class":
        found = [(n, m) for n, m in modules.items() if fits(m) and _is_a(m, where.name)]
        if not found:
            raise InputError(f"this model has no {what} of class {where.name!r}")
        return found
    if where.kind == "place":
        if where.name == "input":
            return [("", model)]
        if where.name == "hidden weights" and seen is not None:
            live = seen.reaches_weights()
            names = [
                e.module
                for e in seen.events
                if e.weighted and e.module and any(v.number in live for v in e.results)
            ]
            return [(n, modules[n]) for n in dict.fromkeys(names) if fits(modules[n])]
        if seen is None:
            raise InputError(
                f"the place {where.name!r} is found by running the model; pass its inputs"
            )
        raise InputError(
            f"the place {where.name!r} has no {what} of its own; name modules or classes"
        )
    if where.name not in modules:
        raise unknown("module", where.name, modules)
    if not fits(modules[where.name]):
        raise InputError(f"{where.name or 'the model'} is no {what}")
    return [(where.name, modules[where.name])]


def _is_a(module: nn.Module, name: str) -> bool:
    home, _, last = name.rpartition(".")
    public = getattr(
        sys.modules.get(home), last, None
    )  # such as torch.nn.ReLU, which another file defines
    return any(
        c is public or name in (c.__name__, f"{c.__module__}.{c.__qualname__}")
        for c in type(module).__mro__
    )


def _hidden(where: At, seen: Trace | None) -> list[tuple[At, str | None]]:
    """All hidden activations, or one of so many, and the dropout layer that each goes through
    already.
    """
    words = where.name.split()
    shape = words[:1] == ["hidden"] and (len(words) == 1 or (len(words) == 4 and words[2] == "of"))
    if not shape or not all(w.isdigit() for w in words[1::2]):
        raise InputError(
            f"a place is 'input', 'hidden' or such as 'hidden 1 of 2', but got {where.name!r}"
        )
    if seen is None:
        raise InputError(f"the place {where.name!r} is found by running the model; pass its inputs")
    found = [(at, has_layer(seen, value)) for at, value in activations(seen)]
    if len(words) == 1:
        return found
    number, count = int(words[1]), int(words[3])
    if len(found) != count or not 1 <= number <= count:
        names = ": " + ", ".join(str(at) for at, _ in found[:6]) if found else ""
        raise InputError(
            f"the policy is for {count} hidden activations, and this model has {len(found)}{names}; "
            "give rules with names of this model's modules"
        )
    return [found[number - 1]]


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd)


def _replaceable(module: nn.Module) -> bool:
    weights = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)
    return _drops(module) or isinstance(module, (ours.DropConnect, *weights))


def _swapped(model: nn.Module, name: str, module: nn.Module, rule: PolicyRule) -> list[_Edit]:
    """The module's places in the tree, each with what comes there."""
    spec = rule.resolved_spec()
    if isinstance(module, ours.DropConnect) and "connect" in spec.name:
        return list(_reset(name, module, spec.rate))
    if isinstance(module, nn.modules.dropout._DropoutNd):
        if rule.rate is None and not isinstance(rule.spec, Drop):
            spec = spec.at(module.p)
        if _is(module, spec):
            return []
        if isinstance(getattr(module, "schedule", None), SCHEDULES):
            raise InputError(f"{name} has a schedule; set its rate instead")
        after: nn.Module = layer_of(spec)
    elif rule.spec is None or "connect" not in spec.name:
        raise InputError(
            f"{name} is a {type(module).__name__}, which only a drop of weights ('dropconnect') can replace"
        )
    else:
        after = ours.DropConnect(module, spec.rate)
    if any(getattr(module, hooks) for hooks in HOOKS):
        raise InputError(
            f"{name} has hooks of its own, which would be lost; remove them or leave the layer out"
        )
    after.train(module.training)
    places = [(path, parent, child) for path, parent in model.named_modules(remove_duplicate=True)
              for child, m in parent._modules.items() if m is module]  # fmt: skip
    if not places:
        raise InputError("the model itself cannot be replaced; pass what holds it")
    return [
        Swap(f"{path}.{child}".lstrip("."), parent, child, module, after)
        for path, parent, child in places
    ]


class _Through:
    """A call whose result, or one of whose operands, goes through a layer."""

    def __init__(self, layer: nn.Module, operand: int | None) -> None:
        self.layer, self.operand = layer, operand

    def __call__(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.operand is None:
            return self.layer(func(*args, **kwargs))
        args = list(args)
        args[self.operand] = self.layer(args[self.operand])
        return func(*args, **kwargs)


def _tapped(model: nn.Module, rule: PolicyRule, where: At, seen: Trace | None) -> Iterator[_Edit]:
    modules = dict(model.named_modules())
    if where.name not in modules:
        raise unknown("module", where.name, modules)
    module = modules[where.name]
    name = f"dropout_at_{where.function.strip('_')}_{where.number}" + (
        "" if where.operand is None else f"_{where.operand}"
    )
    layer = module._modules.get(name)
    if isinstance(layer, nn.Module):
        yield from _reset(f"{where.name}.{name}".lstrip("."), layer, rule.resolved_spec().rate)
        return
    if seen is None:
        raise InputError(
            "a place in a module's code is found by running the model; pass its inputs"
        )
    if isinstance(module, CONTAINERS):
        raise InputError(
            f"{where.name} is a {type(module).__name__}, whose children are run in turn; name one of those"
        )
    calls = [e for e in seen.events if e.module == where.name and e.key[0] == where.function]
    ways: dict[tuple[str, Way], str] = {}
    for event in calls:
        ways.setdefault(event.key, event.where)
    if where.number >= len(ways):
        raise InputError(
            f"{where.name or 'the model'} calls {where.function} at {len(ways)} places, counted from 0"
        )
    key, line = list(ways.items())[where.number]
    made = layer_of(rule.resolved_spec())
    made.train(module.training)
    yield Tapped(where.name, name, module, made, key, _Through(made, where.operand), line)


def _shifted(seen: Trace | None, edits: list[_Edit]) -> list[str]:
    """Insertions whose result batch normalisation reads directly."""
    notes = []
    for edit in edits:
        if seen is None or not isinstance(edit, Insertion) or edit.before:
            continue
        path = next((n for n, m in seen.model.named_modules() if m is edit.module), edit.path)
        if any(path in value.outputs_of and before_norm(seen, value) for value in seen.values):
            notes.append(
                f"dropout after {edit.path} comes directly before batch normalisation, "
                "whose variance it shifts (Li et al. 2019)"
            )
    return notes
