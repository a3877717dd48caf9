"""From gradients to new weights, for a population: penalties, torch's fused optimizers, the longest
weight vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import kernels
from .network import Population
from .records import FitPlan, Memory, Setting

Call: TypeAlias = tuple[
    float, bool, list[list[Tensor]]
]  # rate, are these weights, what and its gradient and memory


class Updates:
    """One step for every network. ``moments``: the optimizer's memory, buffers like the weights';
    ``steps``: how many.

    ``further``: values and gradients of the other parameters that one network learns; they have no
    penalty. ``memory``: of the steps before.
    """

    def __init__(
        self,
        plan: FitPlan,
        population: Population,
        settings: Sequence[Setting],
        further: tuple[Tensor, Tensor] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.plan, self.population = plan, population
        self.steps = 0
        self.moments = [
            population.buffer() for _ in range(2 if plan.solver == "adam" else bool(plan.momentum))
        ]
        parts = population.layers
        end = population.flat.numel() - sum(b.numel() for b in population.parts[parts:])
        self.weights = population.flat[:end]
        self.alpha = torch.tensor([s.alpha for s in settings], dtype=torch.float64)
        self.decay = (
            settings[0].alpha if len({s.alpha for s in settings}) == 1 else None
        )  # of all networks
        l1 = [s.l1 for s in settings]
        self.l1 = torch.tensor(l1).view(-1, 1, 1) if any(l1) else None
        longest = [math.inf if s.max_norm is None else s.max_norm for s in settings]
        self.longest = torch.tensor(longest).view(-1, 1, 1) if min(longest) < math.inf else None
        rates = [s.lr for s in settings]
        self.adam = kernels.adam(population, self.moments, rates) if plan.solver == "adam" else None
        self.calls = [] if self.adam is not None else self._calls(rates)
        self.further: list[Tensor] = []
        if further is not None and further[0].numel():
            self.further = [torch.zeros_like(further[0]) for _ in self.moments]
            self.calls.append((settings[0].lr, False, [[b] for b in (*further, *self.further)]))
        if memory is not None:
            self.steps = memory.steps
            for buffer, arrays in zip(self.moments, memory.moments, strict=True):
                for view, array in zip(population.views(buffer), arrays, strict=True):
                    view.copy_(torch.from_numpy(array))
            for buffer, array in zip(
                self.further, memory.further, strict=False
            ):  # after a network that learned more: nothing
                buffer.copy_(torch.from_numpy(array))

    def memory(self) -> Memory:
        """For the steps to come, of one network."""
        moments = [[view.numpy() for view in self.population.views(b)] for b in self.moments]
        return Memory(moments, self.steps, [b.numpy() for b in self.further])

    def _calls(self, rates: Sequence[float]) -> list[Call]:
        """Torch's optimizers take one rate for all that they are given."""
        population, parts = self.population, self.population.layers
        buffers = [population.flat, population.gradient, *self.moments]
        if len(set(rates)) == 1:
            end = len(self.weights)
            return [
                (rates[0], True, [[b[:end]] for b in buffers]),
                (rates[0], False, [[b[end:]] for b in buffers]),
            ]
        calls: list[Call] = []
        start = 0
        for lr, some in groupby(rates):
            stop = start + len(list(some))
            each = [[view[start:stop] for view in population.views(b)] for b in buffers]
            calls += [
                (lr, True, [views[:parts] for views in each]),
                (lr, False, [views[parts:] for views in each]),
            ]
            start = stop
        return calls

    @torch.no_grad()
    def step(self, total: Tensor | float) -> Tensor:
        """Use the gradients; returns alpha / 2 * sum W^2 + l1 * sum |W| of every network before,
        [m].

        ``total``: the total weight of the rows of the batch, which divides penalties; a number, or
        [m, 1, 1].
        """
        plan, population = self.plan, self.population
        pairs = list(zip(population.gradients, population.weights, strict=False))
        lengths: Tensor | float = 0.0
        if self.l1 is not None:
            lengths = self.l1.view(-1) * sum(w.abs().sum((1, 2)) for _, w in pairs)
            for g, w in pairs:
                g.addcmul_(w.sign(), self.l1 / total)
        shares = self.alpha / (total if isinstance(total, float) else total.view(-1))
        decay = 0.0
        if self.adam is not None:
            count = self.steps + 1
            correction = math.sqrt(1.0 - plan.beta_2**count) / (1.0 - plan.beta_1**count)
            squares = self.adam(shares, correction, plan.beta_1, plan.beta_2, plan.epsilon)
        else:
            squares = torch.stack([w.square().sum((1, 2)) for w in population.weights]).sum(0)
            if self.decay is not None and isinstance(total, float):
                decay = self.decay / total
            else:
                for g, w in pairs:
                    g.addcmul_(w, shares.to(w.dtype).view(-1, 1, 1))
        for lr, weights, (params, grads, *moments) in self.calls:
            self._optimize(lr, decay if weights else 0.0, params, grads, moments)
        self.steps += 1
        if self.longest is not None:
            for w in population.weights[:-1]:
                w.mul_(
                    (
                        self.longest / w.square().sum(2, keepdim=True).sqrt_().clamp_min(1e-12)
                    ).clamp_max(1.0)
                )
        return 0.5 * self.alpha * squares + lengths

    def _optimize(
        self,
        lr: float,
        decay: float,
        params: list[Tensor],
        grads: list[Tensor],
        moments: list[list[Tensor]],
    ) -> None:
        """One step of torch's optimizer. ``decay``: what of a weight is added to its gradient."""
        plan = self.plan
        shared: dict[str, Any] = {"weight_decay": decay, "lr": lr, "maximize": False}
        if plan.solver == "adam":
            steps = [torch.tensor(self.steps + 1.0)] * len(params)
            # scikit-learn adds epsilon before it corrects the bias, as the paper's shorter form
            # does; torch after
            epsilon = plan.epsilon / math.sqrt(1.0 - plan.beta_2 ** (self.steps + 1))
            torch._fused_adam_(
                params,
                grads,
                moments[0],
                moments[1],
                [],
                steps,
                amsgrad=False,
                beta1=plan.beta_1,
                beta2=plan.beta_2,
                eps=epsilon,
                **shared,
            )
        else:
            # a buffer of zeros is what the first gradient would be taken for, without dampening
            torch._fused_sgd_(
                params,
                grads,
                moments[0] if moments else [],
                momentum=plan.momentum,
                dampening=0.0,
                nesterov=plan.nesterov and plan.momentum > 0,
                is_first_step=False,
                **shared,
            )
