"""Parts of weights between kept units, gathered in one pass, and their gradients, scattered in one.

Autograd's own ``index_select`` takes two passes each way. The numbers are the same: they are only
copied.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import dispatch, ops
from .tensor_key import TensorKey

_MATRIX_TYPES = (Tensor, torch.nn.Parameter)


def subset(rows: int, n: int, count: int, tensor_key: TensorKey) -> Tensor | None:
    """Return the indices of the ``count`` smallest of ``n`` words for each of ``rows`` examples.

    int64 [rows, count], ascending in each row. None where no kernel draws: in graphs, transforms
    and modes, and where the key is not on the CPU.
    """
    ids = tensor_key.sample_ids
    if (
        not ops.has_parts
        or dispatch.is_reference()
        or torch.compiler.is_compiling()
        or dispatch.under_transform()
        or torch._C._len_torch_dispatch_stack()
        or type(tensor_key.seed_step) is not Tensor
        or not tensor_key.seed_step.is_cpu
        or not (ids is None or (type(ids) is Tensor and ids.is_cpu and ids.is_contiguous()))
    ):
        return None
    return ops.subset(tensor_key.seed_step, ids, rows, n, count, tensor_key.stream, tensor_key.call)


def runs_native(weight: Tensor, *lists: Tensor | None) -> bool:
    """Return whether the kernels gather parts of ``weight`` here; ``lists`` are of kept units."""
    return (
        ops.has_parts
        and not dispatch.is_reference()
        and not torch.compiler.is_compiling()
        and type(weight) in _MATRIX_TYPES
        and weight.is_cpu
        and weight.dtype in ops.TYPES
        and weight.is_contiguous()
        and not torch._C._len_torch_dispatch_stack()
        and not dispatch.under_transform()
        and all(units is None or type(units) is Tensor for units in lists)
    )


def gather(
    weight: Tensor, bias: Tensor | None, rows: Tensor | None, columns: Tensor | None, block: int
) -> tuple[Tensor, Tensor | None]:
    """Return the part of ``weight`` [out, in, ...], and that of ``bias`` [out].

    ``rows`` and ``columns`` ascend; None keeps all. A unit of the columns is ``block`` neighboring
    elements of a row of the weight.
    """
    if rows is None or bias is None:
        return _Gather.apply(weight, None, rows, columns, block)[0], bias
    return _Gather.apply(weight, bias, rows, columns, block)


def scatter(part: Tensor, rows: Tensor, height: int) -> Tensor:
    """Return ``height`` rows that hold ``part`` at the ascending ``rows``, and 0 elsewhere."""
    shape = torch.Size((height, *part.shape[1:]))
    return _Scatter.apply(part, None, rows, None, 1, (shape, None))[0]


def _matrix(t: Tensor) -> Tensor:
    return t.detach().flatten(1) if t.dim() > 1 else t.detach().unsqueeze(1)


def _gather(t: Tensor, rows: Tensor | None, columns: Tensor | None, block: int) -> Tensor:
    part = ops.gather_part(_matrix(t), rows, columns, block)
    trailing = t.shape[2:]
    if t.dim() == 1:
        return part.squeeze(1)
    return part.reshape(len(part), part.shape[1] // max(1, trailing.numel()), *trailing)


def _scatter(
    part: Tensor, shape: torch.Size, rows: Tensor | None, columns: Tensor | None, block: int
) -> Tensor:
    flat = _matrix(part).contiguous()
    return ops.scatter_part(flat, rows, columns, shape[0], shape[1:].numel(), block).reshape(shape)


class _Gather(torch.autograd.Function):
    """The parts of a weight and a bias; the gradients are 0 outside of them."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
        block: int,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, columns)
        ctx.shapes, ctx.block = (weight.shape, None if bias is None else bias.shape), block
        part = _gather(weight, rows, columns, block)
        return part, None if bias is None else _gather(bias, rows, None, 1)

    @staticmethod
    def backward(ctx: Any, weight: Tensor | None, bias: Tensor | None) -> tuple[Any, ...]:
        rows, columns = ctx.saved_tensors
        run = _Scatter.apply if torch.is_grad_enabled() else _Scatter.run
        return (*run(weight, bias, rows, columns, ctx.block, ctx.shapes), None, None, None)


class _Scatter(torch.autograd.Function):
    """The inverse of :class:`_Gather`, for second derivatives."""

    @staticmethod
    def run(
        weight: Tensor | None,
        bias: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
        block: int,
        shapes: tuple[torch.Size, torch.Size | None],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of the whole weight and bias."""
        weight_shape, bias_shape = shapes
        return (
            None if weight is None else _scatter(weight, weight_shape, rows, columns, block),
            None
            if bias is None or bias_shape is None
            else _scatter(bias, bias_shape, rows, None, 1),
        )

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*arguments[2:4])
        ctx.block = arguments[4]
        return _Scatter.run(*arguments)

    @staticmethod
    def backward(ctx: Any, weight: Tensor | None, bias: Tensor | None) -> tuple[Any, ...]:
        rows, columns = ctx.saved_tensors
        parts = [
            None if t is None else _Gather.apply(t.contiguous(), None, rows, own, block)[0]
            for t, own, block in ((weight, columns, ctx.block), (bias, None, 1))
        ]
        return (*parts, None, None, None, None)
