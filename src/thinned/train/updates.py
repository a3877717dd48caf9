"""From gradients to new weights: penalties, clipping, torch's own optimizers, decoupled decay,
max-norm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    """The share of the peak learning rate at ``step`` of ``total``: linear warm-up, then constant
    or half a cosine to 0.
    """
    rising = round(optimizer.warmup * total)
    if step < rising:
        return (step + 1) / rising
    if optimizer.decay == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


@dataclass(frozen=True)
class Span:
    """Neighbouring networks that have a setting, and its values for them."""

    start: int
    stop: int
    values: Tensor


def spans(values: Sequence[float | None]) -> list[Span]:
    """The runs of networks whose value is neither None nor 0."""
    found = ((start, stop) for start, stop, has in runs([bool(v) for v in values]) if has)
    return [
        Span(start, stop, torch.tensor([float(v or 0) for v in values[start:stop]]))
        for start, stop in found
    ]


class Updates:
    """One step for every network of a trainee."""

    def __init__(self, trainee: Trainee, total: int) -> None:
        self.trainee, self.total = trainee, total
        recipes = trainee.recipes
        self.views: list[tuple[Part, int, int, Tensor]] = []
        groups: dict[object, dict[str, Any]] = {}  # equal options together: fewer calls
        for start, stop, settings in runs([r.optimizer for r in recipes]):
            for part in trainee.parts:
                view = trainee.members(part.tensor, start, stop).detach()
                self.views.append((part, start, stop, view))
                factors = settings.layer_lr or (1.0,)
                base = settings.lr * factors[min(part.layer, len(factors) - 1)]
                options = {
                    "lr": base,
                    "base": base,
                    "settings": settings,
                    "shrink": settings.shrink if part.weight else 0.0,
                    **_extra(settings),
                }
                groups.setdefault(tuple(options.items()), {"params": [], **options})[
                    "params"
                ].append(view)
        cls, options = _CLASSES[recipes[0].optimizer.name]
        self.optimizer = cls(list(groups.values()), **options)
        self.l1, self.l2, self.max_norm = (
            spans([getattr(r, n) for r in recipes]) for n in ("l1", "l2", "max_norm")
        )
        clip = [r.clip for r in recipes]
        self.clip = torch.tensor([v or math.inf for v in clip]) if any(clip) else None

    def step(self, number: int) -> None:
        """Use the gradients that ``backward`` left."""
        with torch.no_grad():
            self._penalise()
            if self.clip is not None:
                self._clip(self.clip)
            for part, start, stop, view in self.views:
                grad = part.tensor.grad  # None: this step does not touch the parameter
                view.grad = None if grad is None else self.trainee.members(grad, start, stop)
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * rate_factor(group["settings"], number, self.total)
                if group["shrink"]:
                    for p in group["params"]:
                        if p.grad is not None:
                            p.mul_(1.0 - group["lr"] * group["shrink"])
            self.optimizer.step()
            self._project()

    def clear(self) -> None:
        """Forget the gradients."""
        for part in self.trainee.parts:
            part.tensor.grad = None

    def _weights(self, span: Span) -> Iterator[tuple[Part, Tensor]]:
        for part in self.trainee.parts:
            if part.weight and part.tensor.grad is not None:
                yield part, self.trainee.members(part.tensor, span.start, span.stop)

    def _penalise(self) -> None:
        """The gradients of l1 * sum|W| and l2 * sum W^2."""
        members, spread = self.trainee.members, self.trainee.spread
        for span in self.l2:
            for part, w in self._weights(span):
                assert part.tensor.grad is not None
                members(part.tensor.grad, span.start, span.stop).addcmul_(
                    w, spread(span.values), value=2.0
                )
        for span in self.l1:
            for part, w in self._weights(span):
                assert part.tensor.grad is not None
                members(part.tensor.grad, span.start, span.stop).addcmul_(
                    w.sign(), spread(span.values)
                )

    def _clip(self, longest: Tensor) -> None:
        norm = gradient_norms(self.trainee).square().sum(1).sqrt()  # [m]
        factor = torch.where(
            longest.isinf(), 1.0, (longest / norm.clamp_min(1e-12)).clamp_max(1.0)
        )  # inf / inf is NaN
        factor = self.trainee.spread(factor)
        for part in self.trainee.parts:
            if part.tensor.grad is not None:
                part.tensor.grad.mul_(factor)

    def _project(self) -> None:
        """Shorten the incoming weights of every hidden unit to the longest allowed (Srivastava et
        al. 2014, section 5.1).
        """
        for span in self.max_norm:
            for part, w in self._weights(span):
                if part.layer < self.trainee.layers - 1:
                    w = w if part.grid is None else w.view(part.grid)
                    norm = (
                        w.square().sum(part.units, keepdim=True).sqrt_()
                    )  # faster here than vector_norm
                    w.mul_(
                        (self.trainee.spread(span.values) / norm.clamp_min(1e-12)).clamp_max(1.0)
                    )


def gradient_norms(trainee: Trainee) -> Tensor:
    """The length of the gradient of each weight layer: [m, layers]."""
    out = torch.zeros(len(trainee.recipes), trainee.layers)
    for part in trainee.parts:
        if part.tensor.grad is not None:
            out[:, part.layer] += trainee.per_member(part.tensor.grad).square().sum(1)
    return out.sqrt()


def _extra(settings: Optimizer) -> dict[str, Any]:
    match settings.name:
        case "sgd":
            return {"momentum": settings.momentum, "nesterov": settings.nesterov}
        case "rmsprop":
            return {"momentum": settings.momentum}
        case _:
            return {}
