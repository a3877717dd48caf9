"""The torch engine's reference: plain operations that autograd, vmap and the debugger understand.
It defines correctness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...algebra.plan import WORDS, Plan
from .philox import words as _words
from .tensor_key import TensorKey


def _place(drawn: Tensor, plan: Plan) -> Tensor:
    """Bring [samples, cells] onto ``plan.cells_shape``."""
    axis = plan.sample_axis
    if axis is None:
        return drawn.reshape(plan.cells_shape)
    rest = plan.cells_shape[:axis] + plan.cells_shape[axis + 1 :]
    return drawn.reshape(plan.samples, *rest).movedim(0, axis)


def words(plan: Plan, tensor_key: TensorKey, cells: int, device: torch.device | None) -> Tensor:
    """The words of ``cells`` cells of each example that has its own."""
    alone = plan.sample_axis is None
    return _words(
        tensor_key._replace(sample_ids=None) if alone else tensor_key, plan.samples, cells, device
    )


def kept(plan: Plan, tensor_key: TensorKey, device: torch.device | None = None) -> Tensor:
    """The mask of a Bernoulli plan, True where kept; bool, broadcasts to ``plan.shape``."""
    return grown(words(plan, tensor_key, plan.cells, device) >= plan.threshold, plan)


def grown(kept: Tensor, plan: Plan) -> Tensor:
    """The mask from the coins of its cells, [samples, cells]: in place, and grown to blocks."""
    kept = _place(kept, plan)
    if not plan.blocks:
        return kept
    return ~dilated(~kept, plan.extent)


def dilated(fell: Tensor, extent: Sequence[int]) -> Tensor:
    """Each seed drops its place and the next ``extent - 1`` along every axis, which grows by as
    many; bool.
    """
    for axis, size in enumerate(extent):
        if size > 1:
            rows = fell.movedim(axis, -1)
            flat = rows.reshape(-1, 1, rows.shape[-1]).to(torch.uint8)
            grown = F.pad(flat, (size - 1, size - 1)).unfold(-1, size, 1).amax(-1)
            fell = grown.bool().reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return fell


def noise(plan: Plan, tensor_key: TensorKey, device: torch.device | None = None) -> Tensor:
    """The unit noise of a continuous plan, float64: standard normal (Box-Muller on pairs) or
    uniform on (-1, 1).
    """
    if plan.law == "uniform":
        return _place(uniform(words(plan, tensor_key, plan.cells, device)), plan)
    return _place(
        normal(words(plan, tensor_key, plan.cells + plan.cells % 2, device))[:, : plan.cells], plan
    )


def uniform(drawn: Tensor) -> Tensor:
    """Words as uniform numbers on (-1, 1), float64."""
    return (drawn + 0.5) * (2.0 / WORDS) - 1.0


def normal(drawn: Tensor) -> Tensor:
    """Words [n, even] as standard normals, float64: Box-Muller on neighbours."""
    u = ((drawn + 0.5) / WORDS).unflatten(-1, (-1, 2))
    radius, angle = (-2.0 * u[..., 0].log()).sqrt(), 2.0 * math.pi * u[..., 1]
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).flatten(-2)


def sample(x: Tensor, plan: Plan, tensor_key: TensorKey) -> Tensor:
    """What training sees. ``x`` itself where nothing can fall; never NaN for what was dropped,
    whatever ``x`` held.
    """
    if plan.identity or not x.numel():
        return x
    if plan.law != "bernoulli":
        return (
            x
            * (noise(plan, tensor_key, x.device) * (plan.gain * plan.spread) + plan.gain).to(
                wide(x)
            )
        ).to(x.dtype)
    if plan.erased:
        return x.mul(1.0).masked_fill_(
            torch.ones((), dtype=torch.bool, device=x.device), plan.dropped
        )
    return affine(x, plan, kept(plan, tensor_key, x.device))


def wide(x: Tensor) -> torch.dtype:
    """The type to compute in: a gain rounded to bfloat16 would bias every mean."""
    return torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32


def share(keep: Tensor) -> Tensor:
    """numel / (how many are kept), 1 where none is; float64, rounded once (a number over a tensor
    is rounded twice).
    """
    kept = keep.sum()
    count = torch.full_like(kept, keep.numel(), dtype=torch.float64)
    return count / torch.where(kept > 0, kept, keep.numel())


def affine(x: Tensor, plan: Plan, keep: Tensor) -> Tensor:
    """a x + b for a mask: a is the gain where kept and 0 where dropped, b the shift or the fill."""
    gain: float | Tensor = plan.gain
    if plan.kept_fraction:
        gain = gain * share(keep)
    a = keep.to(wide(x)) * gain
    y = (x * a).to(x.dtype)
    if not (plan.shift or plan.dropped):
        return y
    b = keep.new_full((), plan.shift, dtype=wide(x)).where(keep, plan.dropped)
    return (x.to(wide(x)) * a + b).to(x.dtype) if not x.is_complex() else y + b
