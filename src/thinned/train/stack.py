"""A population: many multilayer perceptrons trained in one batched pass, each as if it were alone.

Weights are stacked [m, in, out] and every layer is one batched product. By the mask contract a mask
is a function of (seed, layer, step, example, unit), so members of one seed share their random
words, compared with different thresholds: the words cost as much as for one network, members differ
by what they are told and nothing else (common random numbers), and each member equals the same
recipe trained by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..algebra.drop import Drop
from ..algebra.key import Key, stream_of
from ..algebra.moments import moments
from ..algebra.plan import LawName, Plan, plan
from ..engines.torch.philox import words
from ..engines.torch.reference import normal, uniform
from ..functional.activations import expected
from ..nn.drop_connect import DropConnect
from ..presets import drop_connect
from .data import Split
from .networks import ACTIVATIONS, build
from .recipe import Mlp, Recipe
from .trainee import Part, runs

_BIAS = 1 << 31  # moves 32-bit words into int32, keeping their order
_EPS, _MOMENTUM = 1e-5, 0.1  # of torch's BatchNorm1d


def structure(recipe: Recipe) -> object | None:
    """What members of one stack have to share; None for a recipe that has to be trained by itself."""
    plain = all(
        d is None or (d.per == d.of == "b *" and d.law is not None and not _filled(d))
        for d in recipe.drops
    )
    if not isinstance(recipe.network, Mlp) or not plain:
        return None
    moved = (
        recipe.seed if recipe.augment else None
    )  # a stack draws its augmentation once, from one seed
    same = (recipe.network, bool(recipe.connect), moved, recipe.optimizer.name)
    return (
        *same,
        recipe.optimizer.warmup,
        recipe.optimizer.decay,
        recipe.epochs,
        recipe.batch_size,
        recipe.shuffle,
    )


def _filled(drop: Drop) -> bool:
    planned = plan(drop, (1, 1))
    return planned.dropped != 0.0 or planned.shift != 0.0 or planned.kept_fraction


@dataclass
class Slice:
    """Neighbouring members with one law and one seed at one place."""

    start: int
    stop: int
    law: LawName
    seed: int
    thresholds: Tensor  # int32 [k, 1, 1]
    gains: Tensor  # [k, 1, 1]
    spreads: Tensor  # [k, 1, 1]


class NoiseSite:
    """Dropout at one place of a stack: after hidden layer ``index``, or on the input (0)."""

    def __init__(self, recipes: Sequence[Recipe], index: int, width: int) -> None:
        self.stream, self.width, self.members = stream_of(f"drop{index}"), width, len(recipes)
        specs = [r.drop(index) for r in recipes]
        plans = [None if d is None else plan(d, (1, 1)) for d in specs]
        kinds = [(p and p.law, r.seed) for p, r in zip(plans, recipes, strict=True)]
        self.slices: list[Slice] = []
        for start, stop, (law, seed) in runs(kinds):
            if law is not None:
                numbers = zip(
                    *(_numbers(p) for p in plans[start:stop] if p is not None), strict=True
                )
                self.slices.append(Slice(start, stop, law, seed, *map(_column, numbers)))
        self.signed = any(s.law != "bernoulli" for s in self.slices)
        means = [p.mean_gain if p else 1.0 for p in plans]
        self.mean = torch.tensor(means).view(-1, 1, 1) if any(g != 1.0 for g in means) else None
        self.words: dict[int, Tensor] = {}
        self.normals: dict[int, Tensor] = {}

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        """Draw for the coming batches: their words once for each seed, as int32, and normals where
        a law needs them.
        """
        self.words, self.normals = {}, {}
        for part in self.slices:
            if part.seed in self.words:
                continue
            drawn = words(
                Key(part.seed, self.stream, step=steps, samples=ids),
                len(ids),
                self.width + self.width % 2,
            )
            self.words[part.seed] = (drawn[:, : self.width] - _BIAS).int()
            if any(s.law == "gaussian" and s.seed == part.seed for s in self.slices):
                self.normals[part.seed] = normal(drawn)[:, : self.width].float()

    def factor(self, start: int, stop: int) -> Tensor:
        """The noise on rows ``start`` to ``stop`` of those prepared: [m, b, width]."""
        out = torch.empty(self.members, stop - start, self.width)
        covered = 0
        for s in self.slices:
            out[covered : s.start] = 1.0
            covered = s.stop
            target = out[s.start : s.stop]
            drawn = self.words[s.seed][start:stop]
            if s.law == "bernoulli":
                torch.ge(drawn, s.thresholds, out=target).mul_(
                    s.gains
                )  # a comparison into floats: no bool in between
            elif s.law == "gaussian":
                torch.mul(self.normals[s.seed][start:stop], s.spreads, out=target).add_(1.0)
            else:
                unit = uniform(drawn.long() + _BIAS).float()
                torch.mul(unit, s.spreads, out=target).add_(1.0)
        out[covered:] = 1.0
        return out


def _numbers(p: Plan) -> tuple[int, float, float]:
    erased = p.erased  # its threshold does not fit, so its gain does the work
    return (0 if erased else p.threshold) - _BIAS, 0.0 if erased else p.gain, p.spread


def _column(values: Sequence[float]) -> Tensor:
    whole = all(isinstance(v, int) for v in values)
    return torch.tensor(values, dtype=torch.int32 if whole else torch.float32).view(-1, 1, 1)


class Stack:
    """Members of one :func:`structure`; see :class:`thinned.train.trainee.Trainee`."""

    def __init__(self, recipes: Sequence[Recipe], split: Split) -> None:
        self.recipes = list(recipes)
        network = recipes[0].network
        assert isinstance(network, Mlp)
        self.network, self.split = network, split
        self.act: Callable[[Tensor], Tensor] = ACTIVATIONS[network.activation]()
        widths = (split.inputs, *network.hidden)
        self.places = [NoiseSite(recipes, i, w) for i, w in enumerate(widths)]
        self.layers = len(network.hidden) + 1
        built = {r.seed: build(r.at(drops=(), connect=0.0), split) for r in recipes}
        nets = [built[r.seed] for r in recipes]
        linears = [[m for m in net.modules() if isinstance(m, nn.Linear)] for net in nets]
        self.weights = [
            _stacked([net[i].weight.t() for net in linears]) for i in range(self.layers)
        ]  # [m, in, out]
        self.biases = [  # [m, 1, out]; None where normalisation follows at once
            None if linears[0][i].bias is None else _stacked([net[i].bias[None] for net in linears])
            for i in range(self.layers)
        ]
        self.gammas: list[Tensor] = []
        self.betas: list[Tensor] = []
        self.means: list[Tensor] = []
        self.vars: list[Tensor] = []
        m = len(recipes)
        if network.norm:
            self.gammas = [torch.ones(m, 1, w).requires_grad_() for w in network.hidden]
            self.betas = [torch.zeros(m, 1, w).requires_grad_() for w in network.hidden]
            self.means = [torch.zeros(m, 1, w) for w in network.hidden]
            self.vars = [torch.ones(m, 1, w) for w in network.hidden]
        self.parts = [Part(w, i, True, (1,)) for i, w in enumerate(self.weights)]
        others = (self.biases, self.gammas, self.betas)
        self.parts += [
            Part(b, i, False) for group in others for i, b in enumerate(group) if b is not None
        ]
        self.connect = None
        if recipes[0].connect:
            law = [moments(drop_connect(r.connect)) for r in recipes]
            self.connect = (
                torch.tensor([m.gain for m in law]).view(-1, 1, 1),
                torch.tensor([m.square for m in law]).view(-1, 1, 1),
            )
        self.fused = (
            network.order == ("linear", "act", "drop")
            and isinstance(self.act, nn.ReLU)
            and not self.connect
        )
        self.noise: list[
            Tensor
        ] = []  # of DropConnect, for the prepared rows, one a hidden layer [s, n, width]
        self.cursor = 0

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        self.cursor = 0
        for place in self.places:
            place.prepare(ids, steps)
        if self.connect:
            seeds = [r.seed for r in self.recipes]
            self.noise = []
            for i, width in enumerate(self.network.hidden, 1):
                even = width + width % 2
                drawn = {
                    s: normal(
                        words(
                            Key(s, stream_of(f"linear{i}"), step=steps, samples=ids), len(ids), even
                        )
                    )[:, :width].float()
                    for s in dict.fromkeys(seeds)
                }
                self.noise.append(
                    torch.stack([drawn[s] for s in seeds])
                    if len(drawn) > 1
                    else drawn[seeds[0]][None]
                )

    def finish(self) -> None:
        self.noise = []
        for place in self.places:
            place.words, place.normals = {}, {}

    def forward(self, x: Tensor, ids: Tensor, step: int) -> Tensor:
        b = x.shape[-2]
        start, stop = self.cursor, self.cursor + b
        self.cursor = stop
        h = self._dropped(0, x.expand(len(self.recipes), *x.shape[-2:]), start, stop)
        for i in range(self.layers - 1):
            if self.fused:
                place = self.places[i + 1]
                factor = self._factor(i + 1, start, stop)
                h = _Hidden.apply(h, self.weights[i], self.biases[i], factor, place.signed)
                continue
            for op in self.network.order:
                if op == "linear":
                    h = self._connected(i, h, start, stop) if self.connect else self._linear(i, h)
                elif op == "act":
                    h = self.act(h)
                elif op == "norm":
                    h = self._normed(i, h)
                else:
                    h = self._dropped(i + 1, h, start, stop)
        return self._linear(-1, h)

    def evaluate(self, x: Tensor) -> Tensor:
        h, _ = self._evaluated(x)
        return h

    def _evaluated(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        h = x.expand(len(self.recipes), *x.shape[-2:])
        if (mean := self.places[0].mean) is not None:
            h = h * mean
        active: list[Tensor] = []
        relu = isinstance(self.act, nn.ReLU)
        for i in range(self.layers - 1):
            for op in self.network.order:
                if op == "linear":
                    if self.connect:
                        h = expected(self.act, *self._moments(i, h))
                        active.append(h)
                    else:
                        h = self._linear(i, h)
                elif op == "act":
                    if not self.connect:
                        h = h.relu_() if relu else self.act(h)
                        active.append(h)
                elif op == "norm":
                    h = (h - self.means[i]) * (
                        (self.vars[i] + _EPS).rsqrt() * self.gammas[i]
                    ) + self.betas[i]
                elif (mean := self.places[i + 1].mean) is not None:
                    h = h * mean
        return self._linear(-1, h), active

    def dead(self, x: Tensor) -> list[float]:
        if not isinstance(self.act, nn.ReLU):
            return [float("nan")] * len(self.recipes)
        alive = torch.cat([(h > 0).any(1) for h in self._evaluated(x)[1]], 1)  # [m, units]
        return (1.0 - alive.float().mean(1)).tolist()

    def _factor(self, place: int, start: int, stop: int) -> Tensor | None:
        return self.places[place].factor(start, stop) if self.places[place].slices else None

    def _dropped(self, place: int, h: Tensor, start: int, stop: int) -> Tensor:
        factor = self._factor(place, start, stop)
        return h if factor is None else h * factor

    def _linear(self, i: int, h: Tensor) -> Tensor:
        bias = self.biases[i]
        z = torch.bmm(h, self.weights[i])
        return z if bias is None else z.add_(bias)

    def _moments(self, i: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a layer under DropConnect (:meth:`thinned.nn.DropConnect.moments`)."""
        assert self.connect is not None
        gain, square = self.connect
        w, bias = self.weights[i], self.biases[i]
        assert bias is not None
        return gain * torch.baddbmm(bias, h, w), square * torch.baddbmm(
            bias.square(), h.square(), w.square()
        )

    def _connected(self, i: int, h: Tensor, start: int, stop: int) -> Tensor:
        mean, var = self._moments(i, h)
        # functional.activations.root in fewer passes; stacks are float32, where this adds nothing
        # that shows.
        return mean + (var + torch.finfo(var.dtype).tiny).sqrt() * self.noise[i][:, start:stop]

    def _normed(self, i: int, h: Tensor) -> Tensor:
        y, mean, var = _Normalise.apply(h, self.gammas[i], self.betas[i])
        n = h.shape[1]
        self.means[i].lerp_(mean, _MOMENTUM)
        self.vars[i].lerp_(var * (n / max(n - 1, 1)), _MOMENTUM)
        return y

    def spread(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)

    def members(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        return tensor[start:stop]

    def per_member(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1)

    def save(self, member: int) -> list[Tensor]:
        return [
            t[member].detach().clone()
            for t in (*(p.tensor for p in self.parts), *self.means, *self.vars)
        ]

    def restore(self, member: int, saved: list[Tensor]) -> None:
        with torch.no_grad():
            for now, then in zip(
                (*(p.tensor for p in self.parts), *self.means, *self.vars), saved, strict=True
            ):
                now[member] = then

    def module(self, member: int) -> nn.Module:
        net = build(self.recipes[member], self.split)
        linears = [m for m in net.modules() if isinstance(m, (nn.Linear, DropConnect))]
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
        with torch.no_grad():
            for linear, w, b in zip(linears, self.weights, self.biases, strict=True):
                linear.weight.copy_(w[member].t())
                if b is not None:
                    linear.bias.copy_(b[member, 0])
            for i, norm in enumerate(norms):
                norm.weight.copy_(self.gammas[i][member, 0])
                norm.bias.copy_(self.betas[i][member, 0])
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean.copy_(self.means[i][member, 0])
                norm.running_var.copy_(self.vars[i][member, 0])
        return net.eval()


class _Hidden(torch.autograd.Function):
    """relu(h W + b) * factor in one buffer: what a hidden layer does most of the time, without
    fresh memory at each step.

    Where the result is 0 so is the slope: the unit was dropped, or its ReLU is off. Elsewhere the
    slope is ``factor``.
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, w: Tensor, b: Tensor, factor: Tensor | None, signed: bool
    ) -> Tensor:
        z = torch.bmm(h, w).add_(b).relu_()
        if factor is not None:
            z.mul_(factor)
        ctx.save_for_backward(h, w, z, factor)
        ctx.signed = signed
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        h, w, z, factor = ctx.saved_tensors
        g = torch.ops.aten.threshold_backward(gradients[0], z.abs() if ctx.signed else z, 0)
        if factor is not None:
            g.mul_(factor)
        for_h = torch.bmm(g, w.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        return for_h, torch.bmm(h.transpose(1, 2), g), g.sum(1, keepdim=True), None, None


class _Normalise(torch.autograd.Function):
    """Batch normalisation over axis 1 of [m, b, width], in fewer passes than autograd's own (Ioffe
    and Szegedy 2015).
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = h.mean(1, keepdim=True)
        unit = h - mean
        var = unit.square().mean(
            1, keepdim=True
        )  # with the mean's pass, a third of var_mean's time along this axis
        rate = (var + _EPS).rsqrt()
        unit.mul_(rate)
        ctx.save_for_backward(unit, rate, gamma)
        ctx.mark_non_differentiable(mean, var)
        return torch.addcmul(beta, unit, gamma), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        unit, rate, gamma = ctx.saved_tensors
        g = gradients[0]
        n = unit.shape[1]
        for_gamma, for_beta = (g * unit).sum(1, keepdim=True), g.sum(1, keepdim=True)
        for_h = torch.addcmul(g - for_beta / n, unit, for_gamma, value=-1.0 / n).mul_(rate * gamma)
        return for_h, for_gamma, for_beta


def _stacked(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.detach() for t in tensors]).contiguous().requires_grad_()
