"""The reference implementation: torch operations that autograd, vmap and debuggers understand.

It defines what is correct for the kernels.
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


def _to_mask_shape(drawn: Tensor, plan: Plan) -> Tensor:
    """Reshape [examples, elements] to ``plan.mask_shape``."""
    axis = plan.sample_axis
    if axis is None:
        return drawn.reshape(plan.mask_shape)
    rest = plan.mask_shape[:axis] + plan.mask_shape[axis + 1 :]
    return drawn.reshape(plan.examples, *rest).movedim(0, axis)


def words(plan: Plan, tensor_key: TensorKey, elements: int, device: torch.device | None) -> Tensor:
    """Return the words of ``elements`` mask elements of each example that has its own mask."""
    if plan.sample_axis is None:
        tensor_key = tensor_key._replace(sample_ids=None)
    return _words(tensor_key, plan.examples, elements, device)


def kept(plan: Plan, tensor_key: TensorKey, device: torch.device | None = None) -> Tensor:
    """Return the mask of a Bernoulli plan, True where kept; it broadcasts to ``plan.shape``."""
    return mask_of_draws(words(plan, tensor_key, plan.elements, device) >= plan.threshold, plan)


def mask_of_draws(kept: Tensor, plan: Plan) -> Tensor:
    """Return the mask of Bernoulli draws [examples, elements], with seeds grown to blocks."""
    kept = _to_mask_shape(kept, plan)
    if not plan.has_blocks:
        return kept
    return ~dilated(~kept, plan.extent)


def dilated(is_dropped: Tensor, extent: Sequence[int]) -> Tensor:
    """Return the dropped elements of seeds: each drops itself and the next ``extent - 1``.

    Every axis grows by ``extent - 1``.
    """
    for axis, size in enumerate(extent):
        if size > 1:
            rows = is_dropped.movedim(axis, -1)
            flat = rows.reshape(-1, 1, rows.shape[-1]).to(torch.uint8)
            windows = F.pad(flat, (size - 1, size - 1)).unfold(-1, size, 1)
            is_dropped = windows.amax(-1).bool().reshape(*rows.shape[:-1], -1).movedim(-1, axis)
    return is_dropped


def noise(plan: Plan, tensor_key: TensorKey, device: torch.device | None = None) -> Tensor:
    """Return the unit noise of a continuous plan, float64.

    It is standard normal (Box-Muller on pairs of elements) or uniform on (-1, 1).
    """
    if plan.law == "uniform":
        return _to_mask_shape(uniform(words(plan, tensor_key, plan.elements, device)), plan)
    return _to_mask_shape(
        normal(words(plan, tensor_key, plan.elements + plan.elements % 2, device))[
            :, : plan.elements
        ],
        plan,
    )


def uniform(drawn: Tensor) -> Tensor:
    """Return words as uniform numbers on (-1, 1), float64."""
    return (drawn + 0.5) * (2.0 / WORDS) - 1.0


def normal(drawn: Tensor) -> Tensor:
    """Return words [n, even] as standard normals, float64: Box-Muller on neighbors."""
    u = ((drawn + 0.5) / WORDS).unflatten(-1, (-1, 2))
    radius, angle = (-2.0 * u[..., 0].log()).sqrt(), 2.0 * math.pi * u[..., 1]
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).flatten(-2)


def sample(x: Tensor, plan: Plan, tensor_key: TensorKey) -> Tensor:
    """Return the training output; ``x`` itself where the plan is the identity.

    Where everything is dropped, the result is finite whatever ``x`` holds.
    """
    if plan.is_identity or not x.numel():
        return x
    if plan.law != "bernoulli":
        return (
            x
            * (noise(plan, tensor_key, x.device) * (plan.gain * plan.spread) + plan.gain).to(
                wide(x)
            )
        ).to(x.dtype)
    if plan.drops_everything:
        return x.mul(1.0).masked_fill_(
            torch.ones((), dtype=torch.bool, device=x.device), plan.dropped
        )
    return affine(x, plan, kept(plan, tensor_key, x.device))


def wide(x: Tensor) -> torch.dtype:
    """Return the dtype to compute in: a gain rounded to bfloat16 would bias every mean."""
    return torch.float64 if x.dtype in (torch.float64, torch.complex128) else torch.float32


def inverse_kept_fraction(keep: Tensor) -> Tensor:
    """Return numel / (number of kept elements), 1 where none is kept; float64, rounded once.

    A Python number divided by a tensor would be rounded twice.
    """
    kept = keep.sum()
    count = torch.full_like(kept, keep.numel(), dtype=torch.float64)
    return count / torch.where(kept > 0, kept, keep.numel())


def affine(x: Tensor, plan: Plan, keep: Tensor) -> Tensor:
    """Return a x + b: a is the gain where kept and 0 where dropped, b the shift or the fill."""
    gain: float | Tensor = plan.gain
    if plan.kept_fraction:
        gain = gain * inverse_kept_fraction(keep)
    a = keep.to(wide(x)) * gain
    y = (x * a).to(x.dtype)
    if not (plan.shift or plan.dropped):
        return y
    b = keep.new_full((), plan.shift, dtype=wide(x)).where(keep, plan.dropped)
    return (x.to(wide(x)) * a + b).to(x.dtype) if not x.is_complex() else y + b
