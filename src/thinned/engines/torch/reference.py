"""The torch engine's reference: plain operations that autograd, vmap and the debugger understand. It defines correctness."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...algebra.key import Key
from ...algebra.plan import WORDS, Plan
from .philox import words


def _place(drawn: Tensor, plan: Plan) -> Tensor:
    """Bring [samples, cells] onto ``plan.cells_shape``."""
    axis = plan.sample_axis
    if axis is None:
        return drawn.reshape(plan.cells_shape)
    rest = plan.cells_shape[:axis] + plan.cells_shape[axis + 1 :]
    return drawn.reshape(plan.samples, *rest).movedim(0, axis)


def kept(plan: Plan, key: Key, device: torch.device | None = None) -> Tensor:
    """The mask of a Bernoulli plan, True where kept; bool, broadcasts to ``plan.shape``."""
    fell = _place(words(key, plan.samples, plan.cells, device) < plan.threshold, plan)
    for axis, size in enumerate(plan.extent):
        if size > 1:  # a seed drops its place and the next size - 1
            rows = fell.movedim(axis, -1)
            flat = rows.reshape(-1, 1, rows.shape[-1]).to(torch.uint8)
            wide = F.pad(flat, (size - 1, size - 1)).unfold(-1, size, 1).amax(-1)
            fell = wide.bool().reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return ~fell


def noise(plan: Plan, key: Key, device: torch.device | None = None) -> Tensor:
    """The unit noise of a continuous plan, float64: standard normal (Box-Muller on pairs) or uniform on (-1, 1)."""
    if plan.law == "uniform":
        return _place(uniform(words(key, plan.samples, plan.cells, device)), plan)
    return _place(normal(words(key, plan.samples, plan.cells + plan.cells % 2, device))[:, : plan.cells], plan)


def uniform(drawn: Tensor) -> Tensor:
    """Words as uniform numbers on (-1, 1), float64."""
    return (drawn + 0.5) * (2.0 / WORDS) - 1.0


def normal(drawn: Tensor) -> Tensor:
    """Words [n, even] as standard normals, float64: Box-Muller on neighbours."""
    u = ((drawn + 0.5) / WORDS).unflatten(-1, (-1, 2))
    radius, angle = (-2.0 * u[..., 0].log()).sqrt(), 2.0 * math.pi * u[..., 1]
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).flatten(-2)


def sample(x: Tensor, plan: Plan, key: Key) -> Tensor:
    """What training sees. ``x`` itself where nothing can fall; never NaN for what was dropped, whatever ``x`` held."""
    if plan.identity or not x.numel():
        return x
    if plan.law != "bernoulli":
        factor = (noise(plan, key, x.device) * (plan.gain * plan.spread) + plan.gain).to(x.dtype)
        return x * factor + plan.shift if plan.shift else x * factor
    if plan.erased:
        return x.mul(1.0).masked_fill_(torch.ones((), dtype=torch.bool, device=x.device), plan.dropped)
    keep = kept(plan, key, x.device)
    gain = plan.gain
    if plan.realised:
        gain *= keep.numel() / max(int(keep.sum()), 1)
    y = x * gain + plan.shift if plan.shift else x * gain
    return y.masked_fill_(~keep, plan.dropped)  # in place keeps the memory format of x


def mean(x: Tensor, plan: Plan) -> Tensor:
    """What evaluation sees; ``x`` itself under every scale but Classic."""
    if (plan.mean_gain, plan.mean_shift) == (1.0, 0.0):
        return x
    y = x * plan.mean_gain
    return y + plan.mean_shift if plan.mean_shift else y
