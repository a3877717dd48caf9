"""Many perceptrons of one shape: weights stacked in one buffer, and their gradients by formula.

Written without autograd: at the batch sizes of scikit-learn its bookkeeping would cost as much as the products.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..algebra.drop import Drop
from ..algebra.plan import averages

Map = tuple[Tensor, Tensor | None] | None  # a and b of a x + b
ACTIVATIONS = ("identity", "logistic", "relu", "selu", "tanh")
HEADS = ("identity", "logistic", "softmax")


def product(x: Tensor, w: Tensor) -> Tensor:
    """A batched product; of one pair as a plain one, which is faster."""
    return torch.mm(x[0], w[0])[None] if len(w) == 1 else torch.bmm(x, w)


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


def losses(z: Tensor, y: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Of sums and targets [m, b, outputs]: the loss's gradient [m, b, outputs], and the loss of each row [m, b]."""
    if name == "softmax":
        log = z.log_softmax(-1)
        return log.exp().sub_(y), -(log * y).sum(-1)
    if name == "logistic":
        return z.sigmoid().sub_(y), (F.softplus(z) - y * z).sum(-1)
    delta = z - y
    return delta, 0.5 * delta.square().mean(-1)


class Population:
    """``m`` networks with ``units`` from input to output; weights [m, in, out] and biases [m, 1, out] of one flat buffer."""

    def __init__(self, units: Sequence[int], m: int, activation: str) -> None:
        self.units, self.m, self.activation = tuple(units), m, activation
        pairs = list(zip(self.units[:-1], self.units[1:], strict=True))
        self.shapes = [(m, i, o) for i, o in pairs] + [(m, 1, o) for _, o in pairs]
        self.layers = len(pairs)
        self.flat, self.gradient = self.buffer(), self.buffer()
        self.parts, self.gradients = self.views(self.flat), self.views(self.gradient)
        self.saved: list[tuple[Tensor, Tensor, Map]] = []

    def buffer(self) -> Tensor:
        return torch.zeros(sum(m * i * o for m, i, o in self.shapes))

    def views(self, flat: Tensor) -> list[Tensor]:
        """A buffer as its weights, then its biases."""
        cuts = flat.split([m * i * o for m, i, o in self.shapes])
        return [part.view(shape) for part, shape in zip(cuts, self.shapes, strict=True)]

    @property
    def weights(self) -> list[Tensor]:
        return self.parts[: self.layers]

    def forward(self, x: Tensor, maps: Sequence[Map], signed: bool) -> Tensor:
        """Sums of the last layer [m, b, outputs] from inputs [m or 1, b, features], with the noise of every place."""
        h = _mapped(x, maps[0]).expand(self.m, *x.shape[1:])
        self.saved = []
        last = self.layers - 1
        for i in range(last):
            active = activate(self._sums(i, h), self.activation)
            noise = maps[i + 1]
            if noise is not None and noise[1] is None and self.activation == "relu" and not signed:
                out = active.mul_(noise[0])  # 0 where it fell, and so is its slope
            else:
                out = _mapped(active, noise)
            self.saved.append((h, active, noise))
            h = out
        self.saved.append((h, h, None))
        return self._sums(last, h)

    def backward(self, delta: Tensor) -> None:
        """Gradients of the parts, from the loss's gradient by the last sums."""
        for i in range(self.layers - 1, -1, -1):
            h = self.saved[i][0]
            weight, bias = self.gradients[i], self.gradients[self.layers + i]
            if self.m == 1:
                torch.mm(h[0].t(), delta[0], out=weight[0])
            else:
                torch.bmm(h.transpose(1, 2), delta, out=weight)
            torch.sum(delta, 1, keepdim=True, out=bias)
            if i:
                _, active, noise = self.saved[i - 1]
                delta = product(delta, self.parts[i].transpose(1, 2))
                if noise is not None:
                    delta.mul_(noise[0])
                delta = slope(delta, active, self.activation)
        self.saved = []

    def evaluate(self, x: Tensor, points: Sequence[Sequence[Drop | None]]) -> Tensor:
        """Sums of the last layer without noise; ``points``: of each network."""
        h = _mean(x, [p[0] for p in points]).expand(self.m, *x.shape[1:])
        for i in range(self.layers - 1):
            h = _mean(activate(self._sums(i, h), self.activation), [p[i + 1] for p in points])
        return self._sums(self.layers - 1, h)

    def _sums(self, i: int, h: Tensor) -> Tensor:
        w, b = self.parts[i], self.parts[self.layers + i]
        return torch.addmm(b[0], h[0], w[0])[None] if self.m == 1 else torch.baddbmm(b, h, w)


def _mapped(h: Tensor, noise: Map) -> Tensor:
    if noise is None:
        return h
    a, b = noise
    return h * a if b is None else torch.addcmul(b, h, a)


def _mean(h: Tensor, each: Sequence[Drop | None]) -> Tensor:
    law = [(1.0, 0.0) if point is None else averages(point) for point in each]
    if all(pair == (1.0, 0.0) for pair in law):
        return h
    gain, shift = torch.tensor(law, dtype=h.dtype).t()
    return h * gain.view(-1, 1, 1) + shift.view(-1, 1, 1)
