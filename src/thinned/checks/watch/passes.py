"""One sample of a training run: the same batch as the model stands, in evaluation, and without
dropout alone; observed.
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
from ...surgery.rates import rate_of
from .isolation import evaluating, untouched
from .units import Functions, Units

ForwardPass = Callable[[nn.Module], Any]
_ALPHA = "alpha"  # its dropped values are not 0


def measure(model: nn.Module, run: ForwardPass, units: Units, window: int) -> dict[str, Any]:
    """Passes by ``run`` (its result: the loss, or None), as a plain record; the model is left as it
    was.

    In evaluation batch normalisation changes too, to its running statistics. So where it trains, a
    third pass has it as in training, and dropout alone is off: what dropout does is the difference
    to that.
    """
    quiet = [name for name, module in model.named_modules() if _quiet(module)]
    norms = tuple(
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training
    )
    with untouched(model):
        train, before, given = _pass(model, run, units, True)
    with untouched(model), evaluating(model):
        evaluation, _, plain = _pass(model, run, units, False)
    alone = evaluation.loss
    if norms:
        with untouched(model), evaluating(model, norms):
            without, _, plain = _pass(model, run, None, False)
            alone = without.loss
    modules = dict(model.named_modules())
    rates = {
        _label(site, modules[site.name]): {
            "kind": site.kind,
            "nominal": site.rate,
            "measured": site.fell / site.of
            if site.of and _zeroes(site, modules[site.name])
            else None,
            "in_train": place in train.seen,
            "in_eval": place in evaluation.seen,
        }
        for place, site in {**evaluation.seen, **train.seen}.items()
        if site.kind in ("dropout", "attention", "recurrent", "mask")
    }
    return {
        "train": train.loss,
        "eval": evaluation.loss,
        "alone": alone,
        "rates": rates,
        "quiet": quiet,
        "training": model.training,
        "masks": {name: one.record(rate_at(modules, name)) for name, one in units.fallen.items()},
        "dead": units.dead(window),
        "shift": {
            name: {"ratio": _ratio(v, plain[name]), "behind": before[name]}
            for name, v in given.items()
            if name in plain
        },
        "gradients": gradients(model),
    }


def rate_at(modules: dict[str, nn.Module], name: str) -> float | None:
    """The rate that the layer ``name`` holds; None for functional dropout."""
    module = modules.get(name.partition("#")[0])
    attribute = None if module is None else rate_of(module)
    return None if attribute is None else float(getattr(module, attribute))


def _quiet(module: nn.Module) -> bool:
    """Has it a rate, and does not draw as it stands?"""
    attribute = rate_of(module)
    if attribute is None or not getattr(module, attribute):
        return False
    return module.mode() != "sample" if isinstance(module, DropoutModule) else not module.training


def _label(site: Any, module: nn.Module) -> str:
    """The layer's name; where a call in someone's code draws, also what and where."""
    name = site.name or "(the model)"
    if isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd)):
        return str(name)
    line = site.where.replace("\\", "/").rpartition("/")[2]
    return f"{name} {site.function}" + (f" {line}" if line else "")


def _zeroes(site: Any, module: nn.Module) -> bool:
    """Does what falls there become 0 with probability ``rate``?"""
    if isinstance(module, SpecLayer):
        return isinstance(module.base_spec.law, Bernoulli) and isinstance(
            module.base_spec.fill, Zero
        )
    return (
        not isinstance(module, DropoutModule)
        and site.kind in ("dropout", "mask")
        and _ALPHA not in site.function
    )


def _pass(
    model: nn.Module, run: ForwardPass, units: Units | None, training: bool
) -> tuple[Any, dict[str, int], dict[str, Tensor]]:
    """(what was observed, with the loss; how many draws came before each batch normalisation; its
    inputs' variances).
    """
    variances: dict[str, Tensor] = {}
    draws: dict[str, int] = {}
    with ExitStack() as stack:
        seen: Any = stack.enter_context(observing(model))
        functions = Functions(
            units or Units(), lambda: seen.stack[-1][0] if seen.stack else "", training
        )
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                stack.enter_context(_variance(module, name, seen, variances, draws))
            elif (
                training
                and isinstance(module, SpecLayer)
                and module.mode() == "sample"
                and module.p
            ):
                stack.enter_context(_falling(module, functions))
        stack.enter_context(functions)
        loss = run(model)
    seen.loss = None if loss is None else float(loss)
    return seen, draws, variances


@contextmanager
def _variance(
    norm: nn.Module, name: str, seen: Any, variances: dict[str, Tensor], draws: dict[str, int]
) -> Iterator[None]:
    def before(_: nn.Module, args: Any) -> None:
        x = args[0].detach()
        rows = x.transpose(0, 1).flatten(1) if x.dim() > 1 else x[None]  # [channels, rest]
        variances[name] = rows.double().var(1)
        draws[name] = sum(
            one.calls for one in seen.seen.values() if one.kind in ("dropout", "mask")
        )

    handle = norm.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _falling(module: SpecLayer, functions: Functions) -> Iterator[None]:
    """Show ``functions`` what one of our layers drops. Its noise is no call of torch's that could
    be seen.
    """
    spec = module.base_spec
    kept: list[Tensor] = []

    def before(_: nn.Module, args: Any) -> None:
        kept.append(args[0].clone() if module.inplace else args[0])

    def after(_: nn.Module, args: Any, result: Tensor) -> None:
        given = kept.pop()
        if isinstance(spec.law, Bernoulli) and isinstance(spec.fill, Zero):
            functions.dropped(given, result, spec.per == spec.of)

    # The first of the hooks after, and the last of those before: within observing, which names the
    # module.
    first, last = (
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, prepend=True),
    )
    try:
        yield
    finally:
        first.remove()
        last.remove()


def _ratio(train: Tensor, evaluation: Tensor) -> float | None:
    """The geometric mean over channels of Var_eval / Var_train."""
    seen = (train > 0) & (evaluation > 0)
    if train.shape != evaluation.shape or not seen.any():
        return None
    return math.exp(float((evaluation[seen].log() - train[seen].log()).mean()))


def gradients(model: nn.Module) -> dict[str, float]:
    """The root mean square of the gradient that stands at each layer's own parameters; a layer
    without one is left out.
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
