"""From gradients to new weights: penalties, clipping, torch's own optimizers, decoupled decay, max-norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .recipe import Optimizer
from .trainee import Part, Trainee, runs

_CLASSES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"fused": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.Adam, {"fused": True}),  # its decay is the decoupled one below
    "rmsprop": (torch.optim.RMSprop, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adagrad": (torch.optim.Adagrad, {"fused": True}),
}


def rate_factor(optimizer: Optimizer, step: int, total: int) -> float:
    """The share of the peak learning rate at ``step`` of ``total``: linear warm-up, then constant or half a cosine to 0."""
    rising = round(optimizer.warmup * total)
    if step < rising:
        return (step + 1) / rising
    if optimizer.decay == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


class Updates:
    """One step for every network of a trainee."""

    def __init__(self, trainee: Trainee, total: int) -> None:
        self.trainee, self.total = trainee, total
        recipes = trainee.recipes
        self.slices: list[tuple[Part, int, int, Tensor]] = []
        groups: list[dict[str, Any]] = []
        for start, stop, settings in runs([r.optimizer for r in recipes]):
            for part in trainee.parts:
                view = trainee.members(part, start, stop).detach()
                self.slices.append((part, start, stop, view))
                factors = settings.layer_lr or (1.0,)
                base = settings.lr * factors[min(part.layer, len(factors) - 1)]
                groups.append(
                    {
                        "params": [view],
                        "lr": base,
                        "base": base,
                        "settings": settings,
                        "weight": part.weight,
                        **_extra(settings),
                    }
                )
        cls, options = _CLASSES[recipes[0].optimizer.name]
        self.optimizer = cls(_merged(groups), **options)
        self.l1, self.l2, self.clip, self.max_norm = (
            _column([getattr(r, name) for r in recipes]) for name in ("l1", "l2", "clip", "max_norm")
        )

    def step(self, number: int) -> None:
        """Use the gradients that ``backward`` left, and forget them."""
        with torch.no_grad():
            for part in self.trainee.parts:
                if part.weight:
                    self._penalise(part)
            if self.clip is not None:
                self._clip(self.clip)
            for part, start, stop, view in self.slices:
                gradient = part.tensor.grad
                if gradient is not None:
                    view.grad = gradient if gradient.shape == view.shape else gradient[start:stop]
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * rate_factor(group["settings"], number, self.total)
                if group["weight"] and group["settings"].shrink:
                    for p in group["params"]:
                        p.mul_(1.0 - group["lr"] * group["settings"].shrink)
            self.optimizer.step()
            if self.max_norm is not None:
                self._project(self.max_norm)

    def clear(self) -> None:
        for part in self.trainee.parts:
            part.tensor.grad = None

    def _penalise(self, part: Part) -> None:
        gradient = part.tensor.grad
        if gradient is None:
            return
        if self.l2 is not None:  # of l2 * sum W^2
            gradient.addcmul_(part.tensor, self.trainee.spread(torch.nan_to_num(self.l2), part), value=2.0)
        if self.l1 is not None:
            gradient.addcmul_(part.tensor.sign(), self.trainee.spread(torch.nan_to_num(self.l1), part))

    def _clip(self, longest: Tensor) -> None:
        norm = gradient_norms(self.trainee).square().sum(1).sqrt()  # [m]
        factor = (torch.nan_to_num(longest, nan=math.inf) / norm.clamp_min(1e-12)).clamp_max(1.0)
        for part in self.trainee.parts:
            if part.tensor.grad is not None:
                part.tensor.grad.mul_(self.trainee.spread(factor, part))

    def _project(self, longest: Tensor) -> None:
        """Shorten the incoming weights of every hidden unit to ``longest`` (Srivastava et al. 2014, section 5.1)."""
        for part in self.trainee.parts:
            if part.weight and part.layer < self.trainee.layers - 1:
                limit = torch.nan_to_num(self.trainee.spread(longest, part), nan=math.inf)
                norm = torch.linalg.vector_norm(part.tensor, dim=part.units, keepdim=True)
                part.tensor.mul_((limit / norm.clamp_min(1e-12)).clamp_max(1.0))


def gradient_norms(trainee: Trainee) -> Tensor:
    """The length of the gradient of each weight layer: [m, layers]."""
    out = torch.zeros(len(trainee.recipes), trainee.layers)
    for part in trainee.parts:
        if part.tensor.grad is not None:
            out[:, part.layer] += trainee.per_member(part, part.tensor.grad).square().sum(1)
    return out.sqrt()


def _column(values: list[float | None]) -> Tensor | None:
    """One number a network, NaN where it has none; None where nobody has."""
    return torch.tensor([math.nan if v is None else float(v) for v in values]) if any(values) else None


def _extra(settings: Optimizer) -> dict[str, Any]:
    match settings.name:
        case "sgd":
            return {"momentum": settings.momentum, "nesterov": settings.nesterov}
        case "rmsprop":
            return {"momentum": settings.momentum}
        case _:
            return {}


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups with equal options as one: fewer calls."""
    merged: dict[object, dict[str, Any]] = {}
    find: Callable[[dict[str, Any]], object] = lambda g: tuple((k, v) for k, v in g.items() if k != "params")  # noqa: E731
    for group in groups:
        if find(group) in merged:
            merged[find(group)]["params"] += group["params"]
        else:
            merged[find(group)] = group
    return list(merged.values())
