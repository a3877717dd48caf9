"""From gradients to new weights, for a population: penalties, torch's fused optimizers, the longest weight vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from .job import Memory, Plan, Setting
from .network import Population


class Updates:
    """One step for every network. ``moments``: the optimizer's memory, buffers like the weights'; ``steps``: how many.

    ``further``: a value and its gradient, of what one network learns beside its weights, where no penalty falls.
    ``memory``: of the steps before.
    """

    def __init__(
        self,
        plan: Plan,
        population: Population,
        settings: Sequence[Setting],
        further: tuple[Tensor, Tensor] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.plan, self.population = plan, population
        self.steps = 0
        self.moments = [population.buffer() for _ in range(2 if plan.solver == "adam" else bool(plan.momentum))]
        parts = population.layers
        end = population.flat.numel() - sum(b.numel() for b in population.parts[parts:])
        self.weights = population.flat[:end]
        self.alpha, self.l1 = (_column([getattr(s, name) for s in settings]) for name in ("alpha", "l1"))
        self.decay = settings[0].alpha if len({s.alpha for s in settings}) == 1 else None  # by the optimizer
        longest = [math.inf if s.max_norm is None else s.max_norm for s in settings]
        self.longest = torch.tensor(longest).view(-1, 1, 1) if min(longest) < math.inf else None
        buffers = [population.flat, population.gradient, *self.moments]
        self.calls: list[tuple[float, bool, list[list[Tensor]]]] = []  # rate, are these weights, what and its memory
        start = 0
        for lr, some in groupby(s.lr for s in settings):
            stop = start + len(list(some))
            if stop - start == len(settings):
                self.calls.append((lr, True, [[b[:end]] for b in buffers]))
                self.calls.append((lr, False, [[b[end:]] for b in buffers]))
            else:
                each = [[view[start:stop] for view in population.views(b)] for b in buffers]
                self.calls.append((lr, True, [views[:parts] for views in each]))
                self.calls.append((lr, False, [views[parts:] for views in each]))
            start = stop
        self.further: list[Tensor] = []
        if further is not None and further[0].numel():
            self.further = [torch.zeros_like(further[0]) for _ in self.moments]
            self.calls.append((settings[0].lr, False, [[b] for b in (*further, *self.further)]))
        self.nothing = torch.zeros(population.m)
        if memory is not None:
            self.steps = memory.steps
            for buffers, kept in ((self.moments, memory.moments), (self.further, memory.further)):
                for buffer, array in zip(buffers, kept, strict=False):  # of a network that learned more: what is left
                    buffer.copy_(torch.from_numpy(array))

    def memory(self) -> Memory:
        """For the steps to come, of one network."""
        return Memory([b.numpy() for b in self.moments], self.steps, [b.numpy() for b in self.further])

    @torch.no_grad()
    def step(self, total: Tensor | float) -> None:
        """Use the gradients. ``total``: what the batch's rows weigh, by which penalties are divided; a number, or [m, 1, 1]."""
        decay = self._penalise(total)
        plan = self.plan
        for lr, weights, (params, grads, *moments) in self.calls:
            fixed: dict[str, Any] = {"weight_decay": decay if weights else 0.0, "lr": lr, "maximize": False}
            if plan.solver == "adam":
                steps = [torch.tensor(self.steps + 1.0)] * len(params)
                # scikit-learn adds epsilon before it corrects the bias, as the paper's shorter form does; torch after
                epsilon = plan.epsilon / math.sqrt(1.0 - plan.beta_2 ** (self.steps + 1))
                torch._fused_adam_(params, grads, moments[0], moments[1], [], steps, amsgrad=False, beta1=plan.beta_1,
                                   beta2=plan.beta_2, eps=epsilon, **fixed)  # fmt: skip
            else:
                # a buffer of zeros is what the first gradient would be taken for, without dampening
                torch._fused_sgd_(params, grads, moments[0] if moments else [], momentum=plan.momentum, dampening=0.0,
                                  nesterov=plan.nesterov and plan.momentum > 0, is_first_step=False, **fixed)  # fmt: skip
        self.steps += 1
        if self.longest is not None:
            for w in self.population.weights[:-1]:
                w.mul_((self.longest / w.square().sum(2, keepdim=True).sqrt_().clamp_min(1e-12)).clamp_max(1.0))

    def _penalise(self, total: Tensor | float) -> float:
        """Add the gradients of (alpha / 2 * sum W^2 + l1 * sum |W|) / total; returns the share of W left to the optimizer."""
        population = self.population
        pairs = list(zip(population.gradients, population.weights, strict=False))
        if self.l1 is not None:
            for g, w in pairs:
                g.addcmul_(w.sign(), self.l1 / total)
        if self.decay is not None and isinstance(total, float):
            return self.decay / total
        if self.alpha is not None:
            for g, w in pairs:
                g.addcmul_(w, self.alpha / total)
        return 0.0

    def penalty(self) -> Tensor:
        """alpha / 2 * sum W^2 + l1 * sum |W| of every network: [m]."""
        out = self.nothing
        if self.alpha is not None:
            w = self.weights  # of a network alone they are one piece
            square = w.dot(w) if len(out) == 1 else sum(w.square().sum((1, 2)) for w in self.population.weights)
            out = out + 0.5 * self.alpha.view(-1) * square
        if self.l1 is not None:
            out = out + self.l1.view(-1) * sum(w.abs().sum((1, 2)) for w in self.population.weights)
        return out


def _column(values: list[float]) -> Tensor | None:
    return torch.tensor(values).view(-1, 1, 1) if any(values) else None
