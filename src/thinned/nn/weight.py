"""The host on weights: DropConnect."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import presets
from .._errors import InputError, unknown
from ..algebra.drop import Drop
from ..algebra.fill import Zero
from ..algebra.moments import moments
from ..algebra.plan import plan
from ..algebra.scale import Classic, Inverted
from ..engines.torch import reference
from ..functional import core
from .host import Host

Sampling = Literal["exact", "moments"]
Inference = Literal["mean", "moments"]
_NODES = 64  # of the Gauss-Hermite rule
_FLAT = 1e-12  # a deviation that no result shows; below it the slopes of mean / std overflow


class DropWeight(Host, nn.Module):
    """A linear layer whose weights (and bias) fall, each for each example: DropConnect, Wan et al. 2013.

    ``module``: a ``torch.nn.Linear``; its parameters are taken over under the same names, so checkpoints load.
    ``p``: the rate, or a point of layout ``b o i`` with fill ``Zero()`` and scale ``Inverted()`` or ``Classic()``.
    ``activation``: follows the layer inside the host, because the paper's inference needs it. ``sampling``:
    ``"exact"`` draws every weight's coin (memory: batch x out x in); ``"moments"`` draws the pre-activation from its
    Gaussian limit, at the cost of two products (a sum over many weights has this law; for few inputs prefer exact).
    ``inference``: ``"mean"`` is a(q W v); ``"moments"`` is E[a(u)], u ~ N(q W v, p q W^2 v^2), in closed form for ReLU
    and by quadrature else. With no activation they agree.

    Input [b, ..., in]; the first axis is the examples, and the axes between share an example's mask (``"moments"``
    cannot share: it draws for [b, in] alone). Output [b, ..., out]. Raises :class:`thinned.InputError` for other
    modules, points, names or shapes.
    """

    def __init__(
        self,
        module: nn.Linear,
        p: float | Drop = 0.5,
        *,
        activation: Callable[[Tensor], Tensor] | None = None,
        sampling: Sampling = "exact",
        inference: Inference = "mean",
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Linear):
            raise InputError(f"DropWeight needs a torch.nn.Linear, but got {type(module).__name__}")
        for what, value, known in (("sampling", sampling, ("exact", "moments")), ("inference", inference, ("mean", "moments"))):
            if value not in known:
                raise unknown(what, value, known)
        point = p if isinstance(p, Drop) else presets.dropconnect(p)
        if point.of != "b o i" or point.per not in ("b o i", "o i"):
            raise InputError(f"DropWeight needs a point of layout 'b o i' with coins per 'b o i' or 'o i', but got {point}")
        if not (isinstance(point.fill, Zero) and isinstance(point.scale, (Inverted, Classic))):
            raise InputError(
                f"DropWeight needs fill Zero() and scale Inverted() or Classic(), as its closed forms do, but got {point}"
            )
        if sampling == "moments" and point.per != "b o i":
            raise InputError("sampling='moments' needs coins per 'b o i': weights shared over the batch are not independent")
        self.in_features, self.out_features = module.in_features, module.out_features
        self.weight, self.bias = module.weight, module.bias
        self.point, self.p = point, point.rate
        self.activation = activation
        self.sampling: Sampling = sampling
        self.inference: Inference = inference

    @property
    def drop(self) -> Drop:
        """The point as it acts now, at the current ``p``."""
        return self.point if self.p == self.point.rate else self.point.at(self.p)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the pre-activation over the masks: [b, ..., out] each."""
        m = moments(self.drop)
        square_bias = None if self.bias is None else self.bias.square()
        return (
            m.gain * F.linear(x, self.weight, self.bias),
            m.square * F.linear(x.square(), self.weight.square(), square_bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        act = self.activation or (lambda u: u)
        mode, drop = self.mode(), self.drop
        if mode == "off" or drop.rate == 0:
            return act(F.linear(x, self.weight, self.bias))
        if mode == "sample":
            return act(self._gaussian(x) if self.sampling == "moments" and 0 < drop.rate < 1 else self._exact(x))
        if self.inference == "mean" or self.activation is None:
            return act(plan(drop, (1, 1, 1)).mean_gain * F.linear(x, self.weight, self.bias))
        return expected(act, *self.moments(x))

    def _exact(self, x: Tensor) -> Tensor:
        batched = x if x.dim() > 1 else x.unsqueeze(0)
        weight = self.weight
        if self.bias is not None:  # the bias is one more weight, on an input of 1
            weight = torch.cat((weight, self.bias.unsqueeze(1)), 1)
            batched = F.pad(batched, (0, 1), value=1.0)
        each = core.drop(weight.expand(len(batched), *weight.shape), self.drop, key=self.whose())  # [b, o, i]
        y = torch.einsum("boi,b...i->b...o", each, batched)
        return y if x.dim() > 1 else y.squeeze(0)

    def _gaussian(self, x: Tensor) -> Tensor:
        if x.dim() > 2:
            raise InputError(
                f"sampling='moments' needs input [b, in] while it draws, because the axes between would need one mask, but got "
                f"{list(x.shape)}; use sampling='exact'"
            )
        mean, var = self.moments(x)
        per_unit = plan(Drop(presets.gaussian(0.5).law), (len(x) if x.dim() > 1 else 1, self.out_features))  # of unit variance
        whose = self.whose()
        if whose.who is not None:
            core.check_samples(whose.who, per_unit.sample_axis, per_unit.samples)
        eps = reference.noise(per_unit, whose, mean.device)
        return mean + root(var) * eps.view(mean.shape).to(mean.dtype)

    def extra_repr(self) -> str:
        text = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, p={self.p}"
        return text + (f", sampling={self.sampling}" if self.sampling != "exact" else "")


def root(var: Tensor) -> Tensor:
    """The square root, with slope 0 at 0, where its own is infinite: a row of zeros brings every variance there."""
    some = var != 0
    return var.where(some, 1.0).sqrt().where(some, 0.0)


def rectified(mean: Tensor, std: Tensor) -> Tensor:
    """E[max(0, z)], z ~ N(mean, std^2), element by element; :func:`thinned.algebra.moments.rectified` for tensors."""
    dtype = mean.dtype
    if torch.finfo(dtype).bits < 32:  # half precision has no room for what follows
        mean, std = mean.float(), std.float()
    t = mean / std.clamp_min(_FLAT)
    phi = torch.exp(-0.5 * t.square()) / math.sqrt(2.0 * math.pi)
    return (mean * torch.special.ndtr(t) + std * phi).to(dtype)


def expected(act: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor) -> Tensor:
    """E[act(u)] for u ~ N(mean, var), element by element: in closed form for ReLU, else by Gauss-Hermite quadrature."""
    std = root(var)
    if isinstance(act, nn.ReLU) or act in (F.relu, torch.relu):
        return rectified(mean, std)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    total = torch.zeros_like(mean)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        total = total + weight * act(mean + std * node)
    return total
