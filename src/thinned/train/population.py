"""A population: many multilayer perceptrons that are trained in one batched pass.

The networks of a population are its *members*. Their weights are stacked, [m, in, out], and every
layer is one batched product. A mask is a function of (seed, layer, step, sample id, unit), so
members of equal seed share their random 32-bit words and compare them with different thresholds.
This has three consequences: the random words cost as much as for a single network; members differ
only in what their recipes say (common random numbers); and each member equals the network that
:func:`thinned.train.fit` trains from its recipe, up to the rounding of batched products.
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
from ..functional.activations import expected_activation
from ..nn.drop_connect import DropConnect
from ..presets import drop_connect
from .data import Split
from .network_group import TrainableParameter, equal_runs
from .networks import ACTIVATIONS, build
from .recipe import Mlp, Recipe

_BIAS = 1 << 31  # subtracted from random 32-bit words so that they fit int32 in the same order
_EPS, _MOMENTUM = 1e-5, 0.1  # the defaults of torch.nn.BatchNorm1d


def shared_structure(recipe: Recipe) -> object | None:
    """The settings that all members of one population share.

    None where the recipe has to be trained alone: its network is not an MLP, or a dropout spec does
    not draw one value per example and unit, or replaces dropped units by values other than 0.
    """
    elementwise = all(
        d is None or (d.per == d.of == "b *" and d.law is not None and not _replaces_values(d))
        for d in recipe.drops
    )
    if not isinstance(recipe.network, Mlp) or not elementwise:
        return None
    return (
        recipe.network,
        bool(recipe.drop_connect),
        recipe.seed if recipe.augment else None,  # augmentation is drawn once, from one seed
        recipe.optimizer.name,
        recipe.optimizer.warmup,
        recipe.optimizer.decay,
        recipe.epochs,
        recipe.batch_size,
        recipe.shuffle,
    )


def _replaces_values(drop: Drop) -> bool:
    """Whether the spec does more than multiply by noise, as alpha dropout does."""
    planned = plan(drop, (1, 1))
    return planned.dropped != 0.0 or planned.shift != 0.0 or planned.kept_fraction


@dataclass
class NoiseSlice:
    """Adjacent members with the same noise distribution and seed at one layer."""

    start: int
    stop: int
    law: LawName
    seed: int
    thresholds: Tensor  # int32 [k, 1, 1]
    gains: Tensor  # [k, 1, 1]
    spreads: Tensor  # [k, 1, 1]


class NoiseSite:
    """Dropout of all members on the input (``index`` 0) or after hidden layer ``index``."""

    def __init__(self, recipes: Sequence[Recipe], index: int, width: int) -> None:
        self.stream, self.width, self.count = stream_of(f"drop{index}"), width, len(recipes)
        specs = [r.drop(index) for r in recipes]
        plans = [None if d is None else plan(d, (1, 1)) for d in specs]
        kinds = [(p and p.law, r.seed) for p, r in zip(plans, recipes, strict=True)]
        self.slices: list[NoiseSlice] = []
        for start, stop, (law, seed) in equal_runs(kinds):
            if law is not None:
                numbers = zip(
                    *(_noise_constants(p) for p in plans[start:stop] if p is not None), strict=True
                )
                self.slices.append(NoiseSlice(start, stop, law, seed, *map(_column, numbers)))
        self.signed = any(s.law != "bernoulli" for s in self.slices)
        means = [p.mean_gain if p else 1.0 for p in plans]
        self.mean = torch.tensor(means).view(-1, 1, 1) if any(g != 1.0 for g in means) else None
        self.random_words: dict[int, Tensor] = {}
        self.normals: dict[int, Tensor] = {}

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        """Draw the random words of the coming batches, once for each seed.

        They are kept as int32, and as normal values where a Gaussian distribution needs them.
        """
        self.random_words, self.normals = {}, {}
        for noise in self.slices:
            if noise.seed in self.random_words:
                continue
            drawn = words(
                Key(noise.seed, self.stream, step=steps, samples=ids),
                len(ids),
                self.width + self.width % 2,
            )
            self.random_words[noise.seed] = (drawn[:, : self.width] - _BIAS).int()
            if any(s.law == "gaussian" and s.seed == noise.seed for s in self.slices):
                self.normals[noise.seed] = normal(drawn)[:, : self.width].float()

    def factor(self, start: int, stop: int) -> Tensor:
        """The noise on rows ``start`` to ``stop`` of the prepared ones: [m, b, width]."""
        out = torch.empty(self.count, stop - start, self.width)
        covered = 0
        for s in self.slices:
            out[covered : s.start] = 1.0
            covered = s.stop
            target = out[s.start : s.stop]
            drawn = self.random_words[s.seed][start:stop]
            if s.law == "bernoulli":
                # the comparison writes floats directly, without a bool tensor in between
                torch.ge(drawn, s.thresholds, out=target).mul_(s.gains)
            elif s.law == "gaussian":
                torch.mul(self.normals[s.seed][start:stop], s.spreads, out=target).add_(1.0)
            else:
                unit = uniform(drawn.long() + _BIAS).float()
                torch.mul(unit, s.spreads, out=target).add_(1.0)
        out[covered:] = 1.0
        return out


def _noise_constants(p: Plan) -> tuple[int, float, float]:
    # at rate 1 the threshold 2^32 does not fit 32 bits; a gain of 0 drops every unit instead
    if p.drops_everything:
        return -_BIAS, 0.0, p.spread
    return p.threshold - _BIAS, p.gain, p.spread


def _column(values: Sequence[float]) -> Tensor:
    """One number per member, [m, 1, 1]: int32 for integers, otherwise float32."""
    integers = all(isinstance(v, int) for v in values)
    return torch.tensor(values, dtype=torch.int32 if integers else torch.float32).view(-1, 1, 1)


class Population:
    """Many MLPs of one :func:`shared_structure`, trained as one batched network.

    It implements :class:`~thinned.train.network_group.NetworkGroup`; member ``i`` is the network of
    ``recipes[i]``.
    """

    def __init__(self, recipes: Sequence[Recipe], split: Split) -> None:
        self.recipes = list(recipes)
        network = recipes[0].network
        assert isinstance(network, Mlp)
        self.network, self.split = network, split
        self.act: Callable[[Tensor], Tensor] = ACTIVATIONS[network.activation]()
        widths = (split.inputs, *network.hidden)
        self.noise_sites = [NoiseSite(recipes, i, w) for i, w in enumerate(widths)]
        self.layers = len(network.hidden) + 1
        built = {r.seed: build(r.at(drops=(), drop_connect=0.0), split) for r in recipes}
        nets = [built[r.seed] for r in recipes]
        linears = [[m for m in net.modules() if isinstance(m, nn.Linear)] for net in nets]
        self.weights = [
            _stack_weights([net[i].weight.t() for net in linears]) for i in range(self.layers)
        ]  # [m, in, out]
        self.biases = [  # [m, 1, out]; None where normalization follows directly
            None
            if linears[0][i].bias is None
            else _stack_weights([net[i].bias[None] for net in linears])
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
        self.parameters = [TrainableParameter(w, i, True, (1,)) for i, w in enumerate(self.weights)]
        others = (self.biases, self.gammas, self.betas)
        self.parameters += [
            TrainableParameter(b, i, False)
            for group in others
            for i, b in enumerate(group)
            if b is not None
        ]
        self.drop_connect = None
        if recipes[0].drop_connect:
            law = [moments(drop_connect(r.drop_connect)) for r in recipes]
            self.drop_connect = (
                torch.tensor([m.gain for m in law]).view(-1, 1, 1),
                torch.tensor([m.square for m in law]).view(-1, 1, 1),
            )
        self.fused = (
            network.order == ("linear", "act", "drop")
            and isinstance(self.act, nn.ReLU)
            and not self.drop_connect
        )
        # DropConnect's normal noise for the prepared rows, one per hidden layer: [m, n, width], or
        # [1, n, width] where all members have one seed
        self.connect_noise: list[Tensor] = []
        self.cursor = 0  # the next of the prepared rows

    def prepare(self, ids: Tensor, steps: Tensor) -> None:
        self.cursor = 0
        for site in self.noise_sites:
            site.prepare(ids, steps)
        if self.drop_connect:
            seeds = [r.seed for r in self.recipes]
            self.connect_noise = []
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
                self.connect_noise.append(
                    torch.stack([drawn[s] for s in seeds])
                    if len(drawn) > 1
                    else drawn[seeds[0]][None]
                )

    def finish(self) -> None:
        self.connect_noise = []
        for site in self.noise_sites:
            site.random_words, site.normals = {}, {}

    def forward(self, x: Tensor, ids: Tensor, step: int) -> Tensor:
        b = x.shape[-2]
        start, stop = self.cursor, self.cursor + b
        self.cursor = stop
        h = self._dropped(0, x.expand(len(self.recipes), *x.shape[-2:]), start, stop)
        for i in range(self.layers - 1):
            if self.fused:
                site = self.noise_sites[i + 1]
                factor = self._factor(i + 1, start, stop)
                h = _ReluLayer.apply(h, self.weights[i], self.biases[i], factor, site.signed)
                continue
            for op in self.network.order:
                if op == "linear":
                    h = (
                        self._connected(i, h, start, stop)
                        if self.drop_connect
                        else self._linear(i, h)
                    )
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
        if (mean := self.noise_sites[0].mean) is not None:
            h = h * mean
        active: list[Tensor] = []
        relu = isinstance(self.act, nn.ReLU)
        for i in range(self.layers - 1):
            for op in self.network.order:
                if op == "linear":
                    if self.drop_connect:
                        h = expected_activation(self.act, *self._moments(i, h))
                        active.append(h)
                    else:
                        h = self._linear(i, h)
                elif op == "act":
                    if not self.drop_connect:
                        h = h.relu_() if relu else self.act(h)
                        active.append(h)
                elif op == "norm":
                    h = (h - self.means[i]) * (
                        (self.vars[i] + _EPS).rsqrt() * self.gammas[i]
                    ) + self.betas[i]
                elif (mean := self.noise_sites[i + 1].mean) is not None:
                    h = h * mean
        return self._linear(-1, h), active

    def dead_units(self, x: Tensor) -> list[float]:
        if not isinstance(self.act, nn.ReLU):
            return [float("nan")] * len(self.recipes)
        alive = torch.cat([(h > 0).any(1) for h in self._evaluated(x)[1]], 1)  # [m, units]
        return (1.0 - alive.float().mean(1)).tolist()

    def _factor(self, index: int, start: int, stop: int) -> Tensor | None:
        site = self.noise_sites[index]
        return site.factor(start, stop) if site.slices else None

    def _dropped(self, index: int, h: Tensor, start: int, stop: int) -> Tensor:
        factor = self._factor(index, start, stop)
        return h if factor is None else h * factor

    def _linear(self, i: int, h: Tensor) -> Tensor:
        bias = self.biases[i]
        z = torch.bmm(h, self.weights[i])
        return z if bias is None else z.add_(bias)

    def _moments(self, i: int, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of a layer under DropConnect; see :class:`thinned.nn.DropConnect`."""
        assert self.drop_connect is not None
        gain, square = self.drop_connect
        w, bias = self.weights[i], self.biases[i]
        assert bias is not None
        return gain * torch.baddbmm(bias, h, w), square * torch.baddbmm(
            bias.square(), h.square(), w.square()
        )

    def _connected(self, i: int, h: Tensor, start: int, stop: int) -> Tensor:
        mean, var = self._moments(i, h)
        # like functional.activations.safe_sqrt, in fewer passes: a population is float32, where
        # adding the smallest normal number changes no result
        return (
            mean + (var + torch.finfo(var.dtype).tiny).sqrt() * self.connect_noise[i][:, start:stop]
        )

    def _normed(self, i: int, h: Tensor) -> Tensor:
        y, mean, var = _BatchNorm.apply(h, self.gammas[i], self.betas[i])
        n = h.shape[1]
        self.means[i].lerp_(mean, _MOMENTUM)
        self.vars[i].lerp_(var * (n / max(n - 1, 1)), _MOMENTUM)
        return y

    def per_member(self, values: Tensor) -> Tensor:
        return values.view(-1, 1, 1)

    def member_slice(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        return tensor[start:stop]

    def gradient_rows(self, gradient: Tensor) -> Tensor:
        return gradient.flatten(1)

    def save(self, member: int) -> list[Tensor]:
        return [
            t[member].detach().clone()
            for t in (*(p.tensor for p in self.parameters), *self.means, *self.vars)
        ]

    def restore(self, member: int, saved: list[Tensor]) -> None:
        with torch.no_grad():
            for current, value in zip(
                (*(p.tensor for p in self.parameters), *self.means, *self.vars), saved, strict=True
            ):
                current[member] = value

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


class _ReluLayer(torch.autograd.Function):
    """relu(h W + b) * factor in one buffer: the common hidden layer, with fewer allocations.

    The backward pass needs no mask: where the result is 0, the derivative is 0 (the unit is dropped
    or its ReLU is inactive), and everywhere else it is ``factor``. With Gaussian or uniform noise
    (``signed``) the result may be negative where the derivative is not 0.
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
        grad_h = torch.bmm(g, w.transpose(1, 2)) if ctx.needs_input_grad[0] else None
        return grad_h, torch.bmm(h.transpose(1, 2), g), g.sum(1, keepdim=True), None, None


class _BatchNorm(torch.autograd.Function):
    """Batch normalization over axis 1 of [m, b, width], in fewer passes than autograd takes.

    Ioffe and Szegedy 2015.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = h.mean(1, keepdim=True)
        unit = h - mean
        # these two passes take a third of the time of torch.var_mean along this axis
        var = unit.square().mean(1, keepdim=True)
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
        grad_gamma, grad_beta = (g * unit).sum(1, keepdim=True), g.sum(1, keepdim=True)
        grad_h = torch.addcmul(g - grad_beta / n, unit, grad_gamma, value=-1.0 / n).mul_(
            rate * gamma
        )
        return grad_h, grad_gamma, grad_beta


def _stack_weights(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.detach() for t in tensors]).contiguous().requires_grad_()
