"""``check``: run a model as it is given, and say which known mistakes it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from ..._errors import InputError, unknown, whole
from ...surgery.model_access import PARALLEL, not_scripted, unwrapped
from ..finding import Finding, Findings
from ..rules import RULES
from ..rules import named as rule_named
from . import draws, evaluation, gradients, norms, outputs, rates
from .battery import Battery
from .preserve import preserve_state

PURPOSES = ("classification", "regression", "policy", "monte carlo")
_GRADIENTS = {"L8", "L21", "L30"}
RuleFunction = Callable[[Battery], Iterator[Finding]]
CHECKS: dict[str, tuple[RuleFunction, ...]] = {
    "L1": (evaluation.draws_in_evaluation,), "L2": (evaluation.draws_in_evaluation,), "L32": (evaluation.draws_in_evaluation,),
    "L3": (evaluation.rate_lost,), "L4": (rates.keep_probability, rates.rate_not_met), "L5": (norms.variance_shift,),
    "L6": (evaluation.statistics_moved,), "L8": (gradients.recomputed_otherwise,), "L10": (draws.channels_of_sequences,),
    "L11": (draws.one_layer,), "L12": (evaluation.weights_lost,), "L13": (outputs.policy_ratio,),
    "L14": (outputs.dropped_outputs,), "L15": (outputs.mean_shift,), "L17": (rates.scaled_twice,),
    "L18": (draws.mask_reused,), "L19": (outputs.nothing_left,), "L20": (rates.rate_not_met,),
    "L21": (draws.left_in_evaluation, draws.never_draws, gradients.no_effect), "L22": (draws.selu,),
    "L28": (outputs.skipped,), "L29": (outputs.nothing_to_sample,), "L30": (gradients.wrong,),
}  # fmt: skip


def check(
    model: nn.Module,
    *inputs: Any,
    loss: Callable[..., Tensor] | None = None,
    target: Any = None,
    samples: int = 16,
    seed: int = 0,
    select: Iterable[str] | None = None,
    purpose: str | None = None,
    ddp: bool | None = None,
    **named: Any,
) -> Findings:
    """Run ``model`` on ``inputs`` (and ``named``) and find the known mistakes with dropout that
    show when it runs.

    ``loss``: called with the model's output, and with ``target`` after it where one is given;
    returns a scalar. The checks of gradients use it, and without it a fixed random projection of
    the output. ``samples``: passes in training, at least 4. ``seed``: of all of them. ``select``:
    codes or names of rules to look for; None looks for all. ``purpose``: what the model is for,
    where that decides what is right: "classification", "regression", "policy" or "monte carlo".
    ``ddp``: it will be trained under DistributedDataParallel; None asks whether it is.

    Passes made: ``samples`` in training and 2 in evaluation; 1 more in evaluation where batch
    normalisation follows a dropout; 2 in training with backward passes; about 16 of a copy in
    double precision for the gradient, as many again where that looks wrong. Layers without
    parameters that drop by code of their own are also run alone. Statistical tests have a chance of
    1e-6 each of a false alarm.

    The model is left as it was: parameters, buffers, gradients, attributes, modes, hooks, and the
    generators of torch, Python and NumPy; inputs are copied for each pass. Compiled and data
    parallel models are read through. What could not be checked stands with its reason in
    ``unchecked`` of the result.

    Raises :class:`thinned.InputError` for a scripted, lazy or sharded model, for no inputs, and for
    arguments outside their ranges. What the model raises passes on, with a note of the pass that it
    came from.
    """
    codes = _selected(select)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model has to be a torch.nn.Module, but got {type(model).__name__}; pass the model itself"
        )
    if purpose is not None and purpose not in PURPOSES:
        raise unknown("purpose", purpose, PURPOSES)
    whole(samples, "samples", 4)
    whole(seed, "seed", 0)
    if loss is not None and not callable(loss):
        raise InputError(
            f"loss has to be a function of the model's output, but got {type(loss).__name__}; pass it uncalled"
        )
    if target is not None and loss is None:
        raise InputError(
            "target is for the loss, but there is none; pass loss=function of (output, target)"
        )
    if not inputs and not named:
        raise InputError(
            "check runs the model, so it needs the model's inputs; thinned.find(model) reads layers without"
        )
    inner = observable(model)
    parallel = any(
        isinstance(m, PARALLEL[0]) and not (m.find_unused_parameters or m.static_graph)
        for m in model.modules()
    )
    battery = Battery(
        inner, inputs, named, seed, samples, loss, target, purpose, parallel if ddp is None else ddp
    )
    battery.train_given = inner.training
    with preserve_state(inner, (inputs, named)):
        found = list(_found(battery, codes))
    battery.unchecked.append(
        (
            "L9",
            "one process cannot see others; call thinned.checks.live.same_masks_on_ranks in each",
        )
    )
    return Findings(
        found, [(what, why) for what, why in dict.fromkeys(battery.unchecked) if what in codes]
    )


def _selected(select: Iterable[str] | None) -> set[str]:
    if select is None:
        return {*CHECKS, "L9"}
    wanted = [select] if isinstance(select, str) else list(select)
    codes = set()
    for text in wanted:
        code = rule_named(text) if isinstance(text, str) else None
        if code is None:
            raise unknown("rule", text, [*RULES, *(r.name for r in RULES.values())])
        if code not in CHECKS and code != "L9":
            raise InputError(
                f"rule {code} is not one that a running model shows; live are {', '.join(CHECKS)}"
            )
        codes.add(code)
    return codes


def observable(model: nn.Module) -> nn.Module:
    """The model within its wrappers; :class:`thinned.InputError` where no pass over it would tell
    what it does.
    """
    model = unwrapped(model)
    not_scripted(model)
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(t):
            raise InputError(f"{name} has no shape yet; run the model once before it is checked")
        if type(t).__name__ == "DTensor" or "FlatParameter" in type(t).__name__:
            raise InputError(
                f"{name} is sharded, and one rank cannot check a part; check the model before it is sharded"
            )
        if t.device.type == "meta":
            raise InputError(
                f"{name} is on the meta device and holds no values; give the model values first"
            )
    return model


def _found(battery: Battery, codes: set[str]) -> Iterator[Finding]:
    yield from draws.left_in_evaluation(battery) if "L21" in codes else ()
    yield from (
        evaluation.statistics_as_given(battery)
        if "L6" in codes and battery.purpose == "monte carlo"
        else ()
    )
    battery.run()
    if "L5" in codes:
        battery.adapt()
    if codes & _GRADIENTS:
        battery.gradients()
    made: set[RuleFunction] = {draws.left_in_evaluation}
    for code, rules in CHECKS.items():
        for rule in rules if code in codes else ():
            if rule not in made:
                made.add(rule)
                yield from (f for f in rule(battery) if f.code in codes)
