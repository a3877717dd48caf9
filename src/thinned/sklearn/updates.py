"""From gradients to new weights, for a population: penalties, torch's fused optimizers, the longest weight vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

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
        end = population.flat.numel() - sum(b.numel() for b in population.parts[population.layers :])
        self.weights = population.flat[:end], population.gradient[:end]  # and their gradients
        self.alpha, self.l1 = (_column([getattr(s, name) for s in settings]) for name in ("alpha", "l1"))
        longest = [math.inf if s.max_norm is None else s.max_norm for s in settings]
        self.longest = torch.tensor(longest).view(-1, 1, 1) if min(longest) < math.inf else None
        self.same_alpha = settings[0].alpha if len({s.alpha for s in settings}) == 1 else None
        rates = [s.lr for s in settings]
        spans, start = [], 0
        for lr, some in groupby(rates):
            stop = start + len(list(some))
            spans.append((lr, start, stop))
            start = stop
        buffers = [population.flat, population.gradient, *self.moments]
        self.calls: list[tuple[float, list[list[Tensor]]]] = []
        for lr, start, stop in spans:
            one = len(spans) == 1
            self.calls.append((lr, [[b] if one else [v[start:stop] for v in population.views(b)] for b in buffers]))
        self.further: list[Tensor] = []
        if further is not None and further[0].numel():
            self.further = [torch.zeros_like(further[0]) for _ in self.moments]
            self.calls.append((rates[0], [[b] for b in (*further, *self.further)]))
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
        """Use the gradients. ``total``: the weight of the batch's rows, [m] or one number, by which penalties are divided."""
        self._penalise(total)
        plan = self.plan
        for lr, (params, grads, *moments) in self.calls:
            if plan.solver == "adam":
                steps = [torch.tensor(float(self.steps)) for _ in params]
                # scikit-learn adds epsilon before it corrects the bias, as the paper's shorter form does; torch after
                epsilon = plan.epsilon / math.sqrt(1.0 - plan.beta_2 ** (self.steps + 1))
                adam(params, grads, moments[0], moments[1], [], steps, fused=True, amsgrad=False, beta1=plan.beta_1,
                     beta2=plan.beta_2, lr=lr, weight_decay=0.0, eps=epsilon, maximize=False)  # fmt: skip
            else:
                # torch takes None for the first gradient to come, which a buffer of zeros is without dampening
                memory: list[Tensor | None] = list(moments[0]) if moments else [None] * len(params)
                sgd(params, grads, memory, fused=True, weight_decay=0.0, momentum=plan.momentum, lr=lr, dampening=0.0,
                    nesterov=plan.nesterov and plan.momentum > 0, maximize=False)  # fmt: skip
        self.steps += 1
        if self.longest is not None:
            for w in self.population.weights[:-1]:
                w.mul_((self.longest / w.square().sum(2, keepdim=True).sqrt_().clamp_min(1e-12)).clamp_max(1.0))

    def _penalise(self, total: Tensor | float) -> None:
        """The gradients of (alpha / 2 * sum W^2 + l1 * sum |W|) / total."""
        shared = total if isinstance(total, float) else total.view(-1, 1, 1)
        population = self.population
        if self.alpha is not None:
            strength = self.alpha / shared
            if isinstance(total, float) and self.same_alpha is not None:
                self.weights[1].add_(self.weights[0], alpha=self.same_alpha / total)
            else:
                for g, w in zip(population.gradients, population.weights, strict=False):
                    g.addcmul_(w, strength)
        if self.l1 is not None:
            for g, w in zip(population.gradients, population.weights, strict=False):
                g.addcmul_(w.sign(), self.l1 / shared)

    def penalty(self) -> Tensor | float:
        """alpha / 2 * sum W^2 + l1 * sum |W| of every network: [m]."""
        out: Tensor | float = 0.0
        one = self.population.m == 1
        if self.alpha is not None:
            w = self.weights[0]  # of a network alone they are one piece
            square = w.dot(w) if one else sum(w.square().sum((1, 2)) for w in self.population.weights)
            out = out + 0.5 * self.alpha.view(-1) * square
        if self.l1 is not None:
            out = out + self.l1.view(-1) * sum(w.abs().sum((1, 2)) for w in self.population.weights)
        return out


def _column(values: list[float]) -> Tensor | None:
    return torch.tensor(values).view(-1, 1, 1) if any(values) else None
