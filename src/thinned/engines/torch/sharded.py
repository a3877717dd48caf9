"""Distributed tensors: the shards of one tensor draw their parts of one mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..._errors import InputError
from ...algebra.plan import Plan
from . import reference
from .tensor_key import TensorKey


def is_distributed(x: Tensor) -> bool:
    """Return whether ``x`` is a DTensor, without importing what defines it."""
    return type(x).__name__ == "DTensor"  # which torch.compile understands


def agreed(tensor_key: TensorKey, mesh: Any, dims: list[int]) -> TensorKey:
    """Return a key that the ranks along the axes ``dims`` of a mesh have in common.

    A model key is the same on all ranks. A seed from torch's generator is that of the first rank,
    whatever the states of the other generators.
    """
    seed = tensor_key.seed_step
    if len(seed) > 1 or tensor_key.sample_ids is not None or mesh.get_coordinate() is None:
        return tensor_key
    with torch.no_grad():
        seed = seed.to(mesh.device_type, copy=True)
        for dim in dims:
            dist.broadcast(seed, group=mesh.get_group(dim), group_src=0)
    return tensor_key._replace(seed_step=seed)


@torch.compiler.disable
def sample(
    x: Any,
    plan: Plan,
    tensor_key: TensorKey,
    inplace: bool,
    run: Callable[[Tensor, Plan, tuple[int, ...], TensorKey], Tensor],
    keep: Callable[[Plan, TensorKey], Tensor],
) -> Tensor:
    """Return the training output of a DTensor.

    ``run`` draws for the local tensor, at the offset of its first element in the whole tensor along
    each axis. ``keep`` draws a whole mask, for plans with blocks.
    """
    from torch.distributed.tensor import DTensor, Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    placements = x.placements
    if any(type(placement) not in (Shard, Replicate) for placement in placements):
        raise InputError(
            "dropout needs a DTensor with placements Shard or Replicate, because each rank of "
            f"another holds other values than those of the tensor, but got {placements}; write "
            "x.redistribute(placements=[...]) first"
        )
    mesh, local = x.device_mesh, x.to_local()
    # ranks that hold parts of an axis with draws of its own need no common seed
    separate = [n > 1 for n in plan.mask_shape]
    common = [i for i, p in enumerate(placements) if not (p.is_shard() and separate[p.dim])]
    tensor_key = agreed(tensor_key, mesh, common)
    _, start = compute_local_shape_and_global_offset(x.shape, mesh, placements)
    shape = tuple(local.shape)
    if not local.numel():
        y = local
    elif plan.has_blocks or plan.kept_fraction:
        y = _with_blocks(local, plan, start, keep(plan, tensor_key))
    else:
        axis = plan.sample_axis
        if axis is not None:
            ids = tensor_key.sample_ids
            if ids is None:
                ids = torch.arange(plan.examples, device=tensor_key.seed_step.device)
            ids = ids.narrow(-1, start[axis], shape[axis]).contiguous()
            tensor_key = tensor_key._replace(sample_ids=ids)
        mask_shape = tuple(n if own else 1 for n, own in zip(shape, separate, strict=True))
        y = run(local, replace(plan, shape=shape, mask_shape=mask_shape), start, tensor_key)
    whole = DTensor.from_local(
        y, mesh, placements, run_check=False, shape=x.shape, stride=x.stride()
    )
    return x.copy_(whole) if inplace else whole


def _with_blocks(local: Tensor, plan: Plan, start: tuple[int, ...], keep: Tensor) -> Tensor:
    """The local part of the output: the scale follows the kept fraction of the whole mask."""
    gain = plan.gain * float(reference.inverse_kept_fraction(keep)) if plan.kept_fraction else None
    for axis, size in enumerate(local.shape):
        if keep.shape[axis] > 1:
            keep = keep.narrow(axis, start[axis], size)
    scaled = plan if gain is None else replace(plan, gain=gain, kept_fraction=False)
    return reference.affine(local, scaled, keep)
