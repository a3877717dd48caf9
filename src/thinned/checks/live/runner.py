"""``check``: run a model and report the known mistakes with dropout that it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from ..._errors import InputError, unknown, whole
from ...nn.module import dropout_modules
from ...surgery.model_access import PARALLEL, check_not_scripted, unwrap
from ...surgery.model_call import ModelCall
from ..finding import Finding, Findings
from ..rules import RULES
from ..rules import named as rule_code
from . import draws, evaluation, gradients, norms, outputs, rates, reach
from .check_run import CheckRun
from .preserve import preserve_state

PURPOSES = ("classification", "regression", "policy", "monte carlo")
_GRADIENTS = {"L8", "L21", "L30"}
# rules that compare values, and see none on the meta device
_VALUES = {"L4", "L5", "L13", "L14", "L15", "L17", "L18", "L19", "L20", "L21", "L29", "L30"}
RuleFunction = Callable[[CheckRun], Iterator[Finding]]
CHECKS: dict[str, tuple[RuleFunction, ...]] = {
    "L1": (evaluation.draws_in_evaluation,),
    "L2": (evaluation.draws_in_evaluation,),
    "L32": (evaluation.draws_in_evaluation,),
    "L3": (evaluation.rate_lost,),
    "L4": (rates.keep_probability, rates.rate_not_met),
    "L5": (norms.variance_shift,),
    "L6": (evaluation.statistics_moved,),
    "L8": (gradients.recomputed_otherwise,),
    "L10": (draws.channels_of_sequences,),
    "L11": (draws.one_layer,),
    "L12": (evaluation.weights_lost,),
    "L13": (outputs.policy_ratio,),
    "L14": (outputs.dropped_outputs,),
    "L15": (outputs.mean_shift,),
    "L17": (rates.scaled_twice,),
    "L18": (draws.mask_reused,),
    "L19": (outputs.nothing_left,),
    "L20": (rates.rate_not_met,),
    "L21": (draws.left_in_evaluation, draws.never_draws, gradients.no_effect),
    "L22": (draws.selu,),
    "L28": (outputs.skipped,),
    "L29": (outputs.nothing_to_sample,),
    "L30": (gradients.wrong,),
    "L36": (reach.not_reached,),
    "L37": (reach.schedule_not_advanced,),
}


def check(
    model: nn.Module,
    *inputs: Any,
    loss: Callable[..., Tensor] | None = None,
    target: Any = None,
    samples: int = 16,
    seed: int = 0,
    select: Iterable[str] | None = None,
    purpose: str | Iterable[str] | None = None,
    ddp: bool | None = None,
    forward: Callable[..., Any] | None = None,
    **named: Any,
) -> Findings:
    """Run ``model`` on a batch and report the known mistakes with dropout that show.

    Passes made: ``samples`` in training and 2 in evaluation; 1 more in evaluation where batch
    normalization follows a dropout; 2 in training with backward passes; about 16 of a copy in
    double precision for the gradient, and as many again where it looks wrong. Layers without
    parameters that drop in their own code also run alone. Each statistical test has a chance of
    1e-6 of a false alarm.

    Parameters, buffers, gradients, attributes, modes and hooks of the model, and the generators of
    torch, Python and NumPy, are restored; inputs are copied for each pass. Compiled and
    data-parallel models are unwrapped. An exception that the model raises passes through, with a
    note of the pass that it came from.

    Args:
        model: The model, as it is trained.
        inputs: Positional inputs of the model, one batch.
        loss: A function that returns a scalar, called with the output of the model, and with
            ``target`` where there is one. The gradient checks use it; None uses a fixed random
            projection of the output.
        target: The second argument of ``loss``.
        samples: The number of training passes, at least 4.
        seed: The seed of all passes, at least 0; findings depend on nothing else.
        select: Codes or names of the rules to check; None checks all.
        purpose: What the model is for, where that decides what is right: "classification",
            "regression", "policy" or "monte carlo", one or several of them. None infers it where a
            loss function of torch is called or passed, the output is that of a softmax, or
            :func:`thinned.sampling` is active.
        ddp: Whether the model will be trained under DistributedDataParallel; None asks whether it
            is wrapped in it.
        forward: A function of the model and the inputs that runs it, for models that are not run
            by their call, as for :func:`thinned.find`; what it returns is the output. By default a
            LightningModule without ``forward`` is run by its ``training_step``.
        named: Named inputs of the model.

    Returns:
        The findings, the most severe first. Their ``unchecked`` lists what could not be checked,
        with the reason.

    Raises:
        InputError: Where the model is scripted, lazy or sharded, where there are no inputs, or
            where an argument is outside its range.

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> class Net(nn.Module):
        ...     def forward(self, x):
        ...         return F.dropout(x, 0.5)  # training=self.training is missing
        >>> [(finding.code, finding.message) for finding in check(Net(), torch.ones(8, 4))]
        [('L1', 'F.dropout draws in evaluation, at rate 0.5')]
    """
    codes = _selected_codes(select)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model has to be a torch.nn.Module, but got {type(model).__name__}; pass the model "
            "itself"
        )
    purposes = frozenset([purpose] if isinstance(purpose, str) else purpose or ())
    for wanted in purposes - {*PURPOSES}:
        raise unknown("purpose", wanted, PURPOSES)
    whole(samples, "samples", 4)
    whole(seed, "seed", 0)
    if loss is not None and not callable(loss):
        raise InputError(
            "loss has to be a function of the output of the model, but got "
            f"{type(loss).__name__}; pass it uncalled"
        )
    if target is not None and loss is None:
        raise InputError(
            "target is for the loss, but there is none; pass loss=function of (output, target)"
        )
    if not inputs and not named and forward is None:
        raise InputError(
            "check runs the model, so it needs its inputs; thinned.find(model) works without inputs"
        )
    inner = observable(model)
    call = ModelCall(inner, inputs, named, forward)
    parallel = any(
        isinstance(m, PARALLEL[0]) and not (m.find_unused_parameters or m.static_graph)
        for m in model.modules()
    )
    run = CheckRun(
        model=inner,
        call=call,
        seed=seed,
        samples=samples,
        loss=loss,
        target=target,
        purposes=purposes or _sampled(inner),
        ddp=parallel if ddp is None else ddp,
        has_trained=any(p.grad is not None for p in inner.parameters()),
    )
    with preserve_state(inner, (call.inputs, call.named)):
        findings = list(_findings(run, codes))
    why = "one process cannot see others; call thinned.checks.live.same_masks_on_ranks in each"
    run.unchecked.append(("L9", why))
    unchecked = [(code, why) for code, why in dict.fromkeys(run.unchecked) if code in codes]
    return Findings(findings, unchecked)


def _sampled(model: nn.Module) -> frozenset[str]:
    """The purpose of a model that :func:`thinned.sampling` makes draw at present."""
    sampled = any(layer.mode_override == "sample" for _, layer in dropout_modules(model))
    return frozenset({"monte carlo"} if sampled else ())


def _selected_codes(select: Iterable[str] | None) -> set[str]:
    if select is None:
        return {*CHECKS, "L9"}
    wanted = [select] if isinstance(select, str) else list(select)
    codes = set()
    for text in wanted:
        code = rule_code(text) if isinstance(text, str) else None
        if code is None:
            raise unknown("rule", text, [*RULES, *(r.name for r in RULES.values())])
        if code not in CHECKS and code != "L9":
            raise InputError(
                f"rule {code} does not apply to a running model; the live rules are "
                f"{', '.join(CHECKS)}"
            )
        codes.add(code)
    return codes


def observable(model: nn.Module) -> nn.Module:
    """The model without its wrappers.

    Raises :class:`thinned.InputError` where a pass would not show what the model does.
    """
    model = unwrap(model)
    check_not_scripted(model)
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(t):
            raise InputError(f"{name} has no shape yet; run the model once before it is checked")
        if type(t).__name__ == "DTensor" or "FlatParameter" in type(t).__name__:
            raise InputError(
                f"{name} is sharded, and one rank cannot check a part; check the model before it "
                "is sharded"
            )
        if t.device.type == "meta":
            raise InputError(
                f"{name} is on the meta device and holds no values; give the model values first"
            )
    return model


def _findings(run: CheckRun, codes: set[str]) -> Iterator[Finding]:
    if "L21" in codes:
        yield from draws.left_in_evaluation(run)
    if "L6" in codes and "monte carlo" in run.purposes:
        yield from evaluation.statistics_as_given(run)
    run.make_passes()
    run.infer_purposes()
    if "L5" in codes:
        run.make_adapted_evaluation()
    if codes & _GRADIENTS:
        run.make_gradient_passes()
    done: set[RuleFunction] = {draws.left_in_evaluation}
    not_dense = run.not_dense()
    if without_values := [name for name in not_dense if name.endswith("(meta)")]:
        why = f"{', '.join(without_values[:3])}: there are no values to compare"
        run.unchecked += [(code, why) for code in CHECKS if code in _VALUES]
    for code, rules in CHECKS.items():
        for rule in rules if code in codes else ():
            if rule in done:
                continue
            done.add(rule)
            try:
                found = list(rule(run))
            except (RuntimeError, TypeError, AttributeError, KeyError) as error:
                if not not_dense:
                    raise
                why = (
                    f"{', '.join(not_dense[:3])}: the rule raised {type(error).__name__}: "
                    f"{str(error).partition(chr(10))[0]}"
                )
                run.unchecked += [(other, why) for other, rules in CHECKS.items() if rule in rules]
                continue
            yield from (f for f in found if f.code in codes)
