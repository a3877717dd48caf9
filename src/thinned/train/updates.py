"""The weight updates: penalties, clipping, PyTorch's optimizers, decoupled decay and max-norm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .network_group import NetworkGroup, TrainableParameter, equal_runs
from .recipe import Optimizer

_OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.Adam, {"fused": True}),  # its decay is the decoupled one below
    "rmsprop": (torch.optim.RMSprop, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adagrad": (torch.optim.Adagrad, {"fused": True}),
}


def rate_factor(optimizer: Optimizer, step: int, total: int) -> float:
    """The learning rate at ``step`` of ``total``, as a fraction of the peak.

    Linear warmup, then constant or half a cosine down to 0.
    """
    rising = round(optimizer.warmup * total)
    if step < rising:
        return (step + 1) / rising
    if optimizer.decay == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


@dataclass(frozen=True)
class MemberRange:
    """Adjacent members that use a setting, and its value for each of them."""

    start: int
    stop: int
    values: Tensor


def member_ranges(values: Sequence[float | None]) -> list[MemberRange]:
    """The runs of members with a value that is neither None nor 0."""
    found = ((start, stop) for start, stop, has in equal_runs([bool(v) for v in values]) if has)
    return [
        MemberRange(start, stop, torch.tensor([float(v or 0) for v in values[start:stop]]))
        for start, stop in found
    ]


class Updates:
    """The update of every member of a group, step by step."""

    def __init__(self, networks: NetworkGroup, total: int) -> None:
        self.networks, self.total = networks, total
        recipes = networks.recipes
        self.views: list[tuple[TrainableParameter, int, int, Tensor]] = []
        # members with equal options share a parameter group: fewer calls of the optimizer
        groups: dict[object, dict[str, Any]] = {}
        for start, stop, settings in equal_runs([r.optimizer for r in recipes]):
            for parameter in networks.parameters:
                view = networks.member_slice(parameter.tensor, start, stop).detach()
                self.views.append((parameter, start, stop, view))
                factors = settings.layer_lr or (1.0,)
                base = settings.lr * factors[min(parameter.layer, len(factors) - 1)]
                options = {
                    "lr": base,
                    "base": base,
                    "settings": settings,
                    "decoupled_decay": settings.decoupled_decay if parameter.is_weight else 0.0,
                    **_momentum_options(settings),
                }
                groups.setdefault(tuple(options.items()), {"params": [], **options})[
                    "params"
                ].append(view)
        cls, options = _OPTIMIZERS[recipes[0].optimizer.name]
        self.optimizer = cls(list(groups.values()), **options)
        self.l1, self.l2, self.max_norm = (
            member_ranges([getattr(r, n) for r in recipes]) for n in ("l1", "l2", "max_norm")
        )
        clip = [r.clip for r in recipes]
        self.clip = torch.tensor([v or math.inf for v in clip]) if any(clip) else None

    def step(self, number: int) -> None:
        """Update the weights from the gradients that ``backward`` computed."""
        with torch.no_grad():
            self._add_penalties()
            if self.clip is not None:
                self._clip(self.clip)
            for parameter, start, stop, view in self.views:
                grad = parameter.tensor.grad  # None: this step did not use the parameter
                view.grad = None if grad is None else self.networks.member_slice(grad, start, stop)
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * rate_factor(group["settings"], number, self.total)
                if group["decoupled_decay"]:
                    for p in group["params"]:
                        if p.grad is not None:
                            p.mul_(1.0 - group["lr"] * group["decoupled_decay"])
            self.optimizer.step()
            self._project()

    def clear(self) -> None:
        """Discard the gradients."""
        for parameter in self.networks.parameters:
            parameter.tensor.grad = None

    def _weights(self, member_range: MemberRange) -> Iterator[tuple[TrainableParameter, Tensor]]:
        for parameter in self.networks.parameters:
            if parameter.is_weight and parameter.tensor.grad is not None:
                yield (
                    parameter,
                    self.networks.member_slice(
                        parameter.tensor, member_range.start, member_range.stop
                    ),
                )

    def _add_penalties(self) -> None:
        """The gradients of l1 * sum|W| and l2 * sum W^2."""
        member_slice, per_member = self.networks.member_slice, self.networks.per_member
        for member_range in self.l2:
            for parameter, w in self._weights(member_range):
                assert parameter.tensor.grad is not None
                member_slice(parameter.tensor.grad, member_range.start, member_range.stop).addcmul_(
                    w, per_member(member_range.values), value=2.0
                )
        for member_range in self.l1:
            for parameter, w in self._weights(member_range):
                assert parameter.tensor.grad is not None
                member_slice(parameter.tensor.grad, member_range.start, member_range.stop).addcmul_(
                    w.sign(), per_member(member_range.values)
                )

    def _clip(self, longest: Tensor) -> None:
        norm = gradient_norms(self.networks).square().sum(1).sqrt()  # [m]
        # an infinite limit is no limit; written so, because inf / inf is NaN
        factor = torch.where(longest.isinf(), 1.0, (longest / norm.clamp_min(1e-12)).clamp_max(1.0))
        factor = self.networks.per_member(factor)
        for parameter in self.networks.parameters:
            if parameter.tensor.grad is not None:
                parameter.tensor.grad.mul_(factor)

    def _project(self) -> None:
        """Shorten the incoming weights of each hidden unit to at most ``max_norm``.

        Srivastava et al. 2014, section 5.1.
        """
        for member_range in self.max_norm:
            for parameter, w in self._weights(member_range):
                if parameter.layer < self.networks.layers - 1:
                    w = w if parameter.grid is None else w.view(parameter.grid)
                    # faster here than vector_norm
                    norm = w.square().sum(parameter.unit_axes, keepdim=True).sqrt_()
                    w.mul_(
                        (
                            self.networks.per_member(member_range.values) / norm.clamp_min(1e-12)
                        ).clamp_max(1.0)
                    )


def gradient_norms(networks: NetworkGroup) -> Tensor:
    """The length of the gradient of each weight layer: [m, layers]."""
    out = torch.zeros(len(networks.recipes), networks.layers)
    for parameter in networks.parameters:
        if parameter.tensor.grad is not None:
            out[:, parameter.layer] += networks.gradient_rows(parameter.tensor.grad).square().sum(1)
    return out.sqrt()


def _momentum_options(settings: Optimizer) -> dict[str, Any]:
    match settings.name:
        case "sgd":
            return {"momentum": settings.momentum, "nesterov": settings.nesterov}
        case "rmsprop":
            return {"momentum": settings.momentum}
        case _:
            return {}
