"""Many perceptrons of one shape: weights stacked in one buffer, and their gradients by formula.

Written without autograd: at the batch sizes of scikit-learn its bookkeeping would cost as much as
the products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ..algebra.drop import Drop
from ..algebra.plan import averages


@dataclass(frozen=True)
class Kept:
    """A place of one network where all rows of a batch share a mask.

    Only kept units are computed.
    """

    index: Tensor  # of the kept units
    gain: Tensor  # of each of them


Map = tuple[Tensor, Tensor | None] | Kept | None  # a and b of a x + b


def activate(z: Tensor, name: str) -> Tensor:
    """The activation, in the memory of ``z``."""
    match name:
        case "relu":
            return z.relu_()
        case "logistic":
            return z.sigmoid_()
        case "tanh":
            return z.tanh_()
        case "selu":
            return F.selu(z, inplace=True)
    return z


_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # of SELU (Klambauer et al. 2017)


def slope(g: Tensor, active: Tensor, name: str) -> Tensor:
    """``g`` times the activation's derivative, from what the activation gave."""
    match name:
        case "relu":
            return torch.ops.aten.threshold_backward(g, active, 0)
        case "logistic":
            return torch.ops.aten.sigmoid_backward(g, active)
        case "tanh":
            return torch.ops.aten.tanh_backward(g, active)
        case "selu":
            return torch.where(active > 0, g * _SCALE, g * (active + _SCALE * _ALPHA))
    return g


def head(z: Tensor, name: str) -> Tensor:
    """Outputs from the last layer's sums: class probabilities, or the sums themselves."""
    return z.softmax(-1) if name == "softmax" else z.sigmoid() if name == "logistic" else z


def losses(z: Tensor, y: Tensor, share: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Of sums and targets [..., b, outputs] and each row's share in the loss [..., b, 1]: the loss
    [...], and its gradient.
    """
    if name == "softmax":
        log = z.log_softmax(-1)
        return -(log * y * share).sum((-2, -1)), log.exp().sub_(y).mul_(share)
    if name == "logistic":
        return ((F.softplus(z) - y * z) * share).sum((-2, -1)), z.sigmoid().sub_(y).mul_(share)
    off = z - y
    delta = off * share
    return off.mul_(delta).sum((-2, -1)).mul_(0.5 / z.shape[-1]), delta


class Population:
    """``m`` networks with ``units`` from input to output; weights [m, out, in] and biases [m, 1,
    out] of one flat buffer.

    What a unit weighs lies together, so that leaving units out of the first and largest layer
    leaves out whole stretches; with ``inward``, what an input weighs lies together in the first
    layer, as sparse inputs want it. Rows and sums are [m, b, units], or [1, b, units] where all
    networks have the same; of a single network they are [b, units], because single products are
    faster than batched ones.
    """

    def __init__(self, units: Sequence[int], m: int, activation: str, inward: bool = False) -> None:
        self.units, self.m, self.activation, self.inward = tuple(units), m, activation, inward
        pairs = list(zip(self.units[:-1], self.units[1:], strict=True))
        self.shapes = [(m, o, i) for i, o in pairs] + [(m, 1, o) for _, o in pairs]
        self.layers = len(pairs)
        self.flat, self.gradient = self.buffer(), self.buffer()
        self.gradients = self.views(self.gradient)
        self.hold(self.views(self.flat))

    def hold(self, parts: list[Tensor]) -> None:
        """Compute with these weights and biases."""
        self.parts = parts
        self.inner, self.slopes = (
            [p[0] if self.m == 1 else p for p in some] for some in (parts, self.gradients)
        )
        self.turned = [w.mT for w in self.inner[: self.layers]]
        self.saved: list[
            tuple[Tensor, Tensor, Tensor]
        ] = []  # of each layer: inputs, weights, what the activation gave
        self.maps: Sequence[Map] = ()

    def buffer(self) -> Tensor:
        return torch.zeros(sum(map(math.prod, self.shapes)))

    def views(self, flat: Tensor) -> list[Tensor]:
        """A buffer as its weights, then its biases."""
        cuts = flat.split([math.prod(shape) for shape in self.shapes])
        parts = [part.view(shape) for part, shape in zip(cuts, self.shapes, strict=True)]
        if self.inward:
            m, out, inputs = self.shapes[0]
            parts[0] = cuts[0].view(m, inputs, out).mT
        return parts

    @property
    def weights(self) -> list[Tensor]:
        return self.parts[: self.layers]

    def forward(self, x: Tensor, maps: Sequence[Map], signed: bool) -> Tensor:
        """Sums of the last layer from inputs, with the noise of every place; ``signed``: may it be
        below 0?
        """
        h = _mapped(self._wide(x), maps[0])
        self.saved, self.maps = [], (*maps, None)
        for i, (before, after) in enumerate(pairwise(self.maps)):
            w, turned, b = self._between(i, before, after)
            z = _sums(h, turned, b)
            if i == self.layers - 1:
                break
            active = activate(z, self.activation)
            self.saved.append((h, w, active))
            if (
                isinstance(after, tuple)
                and after[1] is None
                and self.activation == "relu"
                and not signed
            ):
                h = active.mul_(after[0])  # 0 where it is dropped, and so is its slope
            else:
                h = active * after.gain if isinstance(after, Kept) else _mapped(active, after)
        self.saved.append((h, w, z))
        return z

    def _wide(self, x: Tensor) -> Tensor:
        return x if self.m == 1 else x.expand(self.m, *x.shape[1:])

    def _between(self, i: int, before: Map, after: Map) -> tuple[Tensor, Tensor, Tensor]:
        """Layer ``i``'s weights, the same transposed, and its biases, of the units that stay."""
        w, b = self.inner[i], self.inner[self.layers + i]
        if not (isinstance(before, Kept) or isinstance(after, Kept)):
            return w, self.turned[i], b
        if isinstance(after, Kept):
            w, b = w.index_select(-2, after.index), b.index_select(-1, after.index)
        if isinstance(before, Kept):
            w = w.index_select(-1, before.index)
        return w, w.mT, b

    def backward(self, delta: Tensor) -> None:
        """Gradients of the parts, from the loss's gradient by the last sums."""
        if any(isinstance(noise, Kept) for noise in self.maps):
            self.gradient.zero_()
        for i in range(self.layers - 1, -1, -1):
            h, w, _ = self.saved[i]
            self._learn(i, h, delta, self.maps[i], self.maps[i + 1])
            if i:
                noise, active = self.maps[i], self.saved[i - 1][2]
                delta = torch.mm(delta, w) if self.m == 1 else torch.bmm(delta, w)
                if noise is not None:
                    delta.mul_(noise.gain if isinstance(noise, Kept) else noise[0])
                delta = slope(delta, active, self.activation)
        self.saved = []

    def _learn(self, i: int, h: Tensor, delta: Tensor, before: Map, after: Map) -> None:
        """Write down the gradients of layer ``i``'s weights and biases."""
        weight, bias = self.slopes[i], self.slopes[self.layers + i]
        given, made = (
            noise.index if isinstance(noise, Kept) else None for noise in (before, after)
        )
        if made is None:
            torch.sum(delta, -2, keepdim=True, out=bias)
        else:
            bias[0].index_copy_(0, made, delta.sum(0))
        if given is None and made is None:
            torch.mm(delta.t(), h, out=weight) if self.m == 1 else torch.bmm(
                delta.mT, h, out=weight
            )
            return
        g = torch.mm(delta.t(), h)
        if given is not None and made is not None:  # a fifth of index_put_'s time
            weight.view(-1).scatter_(
                0, (made[:, None] * weight.shape[1] + given).view(-1), g.view(-1)
            )
        elif given is not None:
            weight.scatter_(1, given.expand(len(g), -1), g)
        elif made is not None:
            weight.index_copy_(0, made, g)

    def evaluate(self, x: Tensor, specs: Sequence[Sequence[Drop | None]]) -> Tensor:
        """Sums of the last layer without noise; ``specs``: of each network."""
        h = self._wide(x)
        for i in range(self.layers):
            h = _sums(_mean(h, [p[i] for p in specs]), self.turned[i], self.inner[self.layers + i])
            if i < self.layers - 1:
                h = activate(h, self.activation)
        return h


def _sums(h: Tensor, turned: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(b, h, turned) if h.dim() == 2 else torch.baddbmm(b, h, turned)


def _mapped(h: Tensor, noise: Map) -> Tensor:
    if noise is None:
        return h
    if isinstance(noise, Kept):
        return h.index_select(-1, noise.index) * noise.gain
    a, b = noise
    return h * a if b is None else torch.addcmul(b, h, a)


def _mean(h: Tensor, each: Sequence[Drop | None]) -> Tensor:
    law = [(1.0, 0.0) if spec is None else averages(spec) for spec in each]
    if all(pair == (1.0, 0.0) for pair in law):
        return h
    gain, shift = torch.tensor(law, dtype=h.dtype).t()
    return h * gain.view(-1, 1, 1) + shift.view(-1, 1, 1) if h.dim() == 3 else h * gain + shift
