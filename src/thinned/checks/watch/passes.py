"""One sample of a training run: passes on the same batch, in training mode, in evaluation mode,
and with only dropout switched off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...algebra.fill import Zero
from ...algebra.law import Bernoulli
from ...nn.module import DropoutModule
from ...nn.spec_layer import SpecLayer
from ...surgery.observe import observing
from ...surgery.rates import rate_of, unmoved_schedules
from .isolation import evaluation_mode, preserve_state
from .units import UnitObserver, Units

ForwardPass = Callable[[nn.Module], Any]
_ALPHA = "alpha"  # alpha dropout does not fill with 0
_KINDS = ("dropout", "attention", "recurrent", "mask")


def measure(model: nn.Module, run: ForwardPass, units: Units, window: int) -> dict[str, Any]:
    """Make the passes of one sample and return their record; the model is left unchanged.

    ``run`` makes a pass and returns its loss, or None. In evaluation, batch normalization changes
    to its running statistics as well. So where it trains, a third pass leaves it in training mode
    and switches only dropout off: the difference to that pass is the effect of dropout.
    """
    inactive = [name for name, module in model.named_modules() if _is_inactive(module)]
    norms = tuple(
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training
    )
    with preserve_state(model):
        train, draws_before, variances = _pass(model, run, units, True)
    with preserve_state(model), evaluation_mode(model):
        evaluation, _, variances_without = _pass(model, run, units, False)
    loss_without = evaluation.loss
    if norms:
        with preserve_state(model), evaluation_mode(model, norms):
            without, _, variances_without = _pass(model, run, None, False)
            loss_without = without.loss
    modules = dict(model.named_modules())
    rates = {
        _label(site, modules[site.name]): {
            "kind": site.kind,
            "nominal": site.rate,
            "measured": _measured_rate(site, modules[site.name]),
            "in_train": place in train.sites,
            "in_eval": place in evaluation.sites,
        }
        for place, site in {**evaluation.sites, **train.sites}.items()
        if site.kind in _KINDS
    }
    return {
        "train": train.loss,
        "eval": evaluation.loss,
        "without": loss_without,
        "rates": rates,
        "inactive": inactive,
        "training": model.training,
        "unmoved": [name for name, _ in unmoved_schedules(model)],
        "masks": {
            name: counts.record(nominal_rate(modules, name))
            for name, counts in units.drop_counts.items()
        },
        "dead": units.dead(window),
        "shift": {
            name: {
                "ratio": _variance_ratio(variance, variances_without[name]),
                "draws_before": draws_before[name],
            }
            for name, variance in variances.items()
            if name in variances_without
        },
        "gradients": gradients(model),
    }


def nominal_rate(modules: dict[str, nn.Module], name: str) -> float | None:
    """The rate of the layer ``name``; None for functional dropout."""
    module = modules.get(name.partition("#")[0])
    attribute = None if module is None else rate_of(module)
    return None if attribute is None else float(getattr(module, attribute))


def _is_inactive(module: nn.Module) -> bool:
    """Whether the module has a rate above 0 but does not draw in its present mode."""
    attribute = rate_of(module)
    if attribute is None or not getattr(module, attribute):
        return False
    return module.mode() != "sample" if isinstance(module, DropoutModule) else not module.training


def _label(site: Any, module: nn.Module) -> str:
    """The name of the layer; for a call in other code also the function and its line."""
    name = site.name or "(the model)"
    if isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd)):
        return str(name)
    line = site.where.replace("\\", "/").rpartition("/")[2]
    return f"{name} {site.function}" + (f" {line}" if line else "")


def _measured_rate(site: Any, module: nn.Module) -> float | None:
    """The share of elements that became 0; None where the rate is not a share of zeros."""
    if isinstance(module, SpecLayer):
        spec = module.base_spec
        zeros = isinstance(spec.law, Bernoulli) and isinstance(spec.fill, Zero)
    else:
        zeros = (
            not isinstance(module, DropoutModule)
            and site.kind in ("dropout", "mask")
            and _ALPHA not in site.function
        )
    return site.dropped / site.elements if site.elements and zeros else None


def _pass(
    model: nn.Module, run: ForwardPass, units: Units | None, training: bool
) -> tuple[Any, dict[str, int], dict[str, Tensor]]:
    """(observation with the loss, draws before each batch normalization, variances of its input)"""
    variances: dict[str, Tensor] = {}
    draws: dict[str, int] = {}
    with ExitStack() as stack:
        observation: Any = stack.enter_context(observing(model))
        unit_observer = UnitObserver(
            units or Units(),
            lambda: observation.stack[-1][0] if observation.stack else "",
            training,
        )
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                stack.enter_context(_variance(module, name, observation, variances, draws))
            elif (
                training
                and isinstance(module, SpecLayer)
                and module.mode() == "sample"
                and module.p
            ):
                stack.enter_context(_counting_dropped(module, unit_observer))
        stack.enter_context(unit_observer)
        loss = run(model)
    observation.loss = None if loss is None else float(loss)
    return observation, draws, variances


@contextmanager
def _variance(
    norm: nn.Module,
    name: str,
    observation: Any,
    variances: dict[str, Tensor],
    draws: dict[str, int],
) -> Iterator[None]:
    def before(_: nn.Module, args: Any) -> None:
        x = args[0].detach()
        rows = x.transpose(0, 1).flatten(1) if x.dim() > 1 else x[None]  # [channels, rest]
        variances[name] = rows.double().var(1)
        draws[name] = sum(
            site.calls for site in observation.sites.values() if site.kind in ("dropout", "mask")
        )

    handle = norm.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _counting_dropped(module: SpecLayer, unit_observer: UnitObserver) -> Iterator[None]:
    """Count what one of our layers drops, which no call of a torch function shows."""
    spec = module.base_spec
    inputs: list[Tensor] = []

    def before(_: nn.Module, args: Any) -> None:
        inputs.append(args[0].clone() if module.inplace else args[0])

    def after(_: nn.Module, args: Any, result: Tensor) -> None:
        x = inputs.pop()
        if isinstance(spec.law, Bernoulli) and isinstance(spec.fill, Zero):
            unit_observer.count_dropped(x, result, spec.per == spec.of)

    # The last hook before and the first hook after the layer, so that both run while `observing`
    # has the layer on its stack.
    last = module.register_forward_pre_hook(before)
    first = module.register_forward_hook(after, prepend=True)
    try:
        yield
    finally:
        last.remove()
        first.remove()


def _variance_ratio(train: Tensor, evaluation: Tensor) -> float | None:
    """The geometric mean over channels of Var_eval / Var_train."""
    if train.shape != evaluation.shape:
        return None
    positive = (train > 0) & (evaluation > 0)
    if not positive.any():
        return None
    return math.exp(float((evaluation[positive].log() - train[positive].log()).mean()))


def gradients(model: nn.Module) -> dict[str, float]:
    """The root mean square of the present gradient of the own parameters of each layer.

    Layers without a gradient are left out.
    """
    found = {}
    for name, module in model.named_modules():
        grads = [
            p.grad for p in module._parameters.values() if p is not None and p.grad is not None
        ]
        grads = [g.coalesce().values() if g.is_sparse else g for g in grads]
        count = sum(g.numel() for g in grads)
        if count:
            total = torch.stack([g.detach().double().square().sum() for g in grads]).sum()
            found[name or "(the model)"] = math.sqrt(float(total) / count)
    return found
