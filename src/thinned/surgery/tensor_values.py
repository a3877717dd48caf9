"""The values of tensors of every layout: dense, sparse, nested, mkldnn, and of the meta device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BY_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_BY_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)
_SPARSE = (torch.sparse_coo, *_BY_ROWS, *_BY_COLUMNS)


def is_dense(x: Tensor) -> bool:
    """Whether ``x`` is strided, not nested, and has values."""
    return x.layout == torch.strided and not x.is_nested and x.device.type != "meta"


def kind_of(x: Tensor) -> str:
    """The kind of a tensor in words: "dense", "nested", "meta" or the name of its layout."""
    if x.device.type == "meta":
        return "meta"
    if x.is_nested:
        return "nested"
    return "dense" if x.layout == torch.strided else str(x.layout).removeprefix("torch.").strip("_")


def shape_of(x: Tensor | None) -> tuple[int, ...] | None:
    """The shape; None for nested tensors, which have none, and for None."""
    return None if x is None or x.is_nested else tuple(x.shape)


def value_parts(x: Tensor) -> list[Tensor] | None:
    """Dense tensors that together are the content of ``x``, differentiable where ``x`` is.

    They are the indices and values of a sparse tensor, and the components of a nested one. Returns
    None where there are no values, as on the meta device.
    """
    if x.device.type == "meta":
        return None
    if x.is_nested:
        return list(x.unbind())
    if x.layout == torch.sparse_coo:
        x = x.coalesce()
        return [x.indices(), x.values()]
    if x.layout in _BY_ROWS:
        return [x.crow_indices(), x.col_indices(), x.values()]
    if x.layout in _BY_COLUMNS:
        return [x.ccol_indices(), x.row_indices(), x.values()]
    return [x] if x.layout == torch.strided else [x.to_dense()]


def float_parts(x: Tensor) -> list[Tensor]:
    """The dense parts of ``x`` that hold floating-point or complex numbers; none on meta."""
    return [p for p in value_parts(x) or () if p.is_floating_point() or p.is_complex()]


def aligned_parts(x: Any, y: Any) -> list[tuple[Tensor, Tensor]]:
    """Pairs of dense tensors with the values of ``x`` and of ``y`` at the same places.

    For sparse tensors these are the places that ``x`` stores. Empty where layouts or shapes differ,
    or where there are no values.
    """
    if x is None or y is None or x.layout != y.layout or x.is_nested != y.is_nested:
        return []
    if shape_of(x) != shape_of(y):
        return []
    x, y = x.detach(), y.detach()
    ours, theirs = value_parts(x), value_parts(y)
    if ours is None or theirs is None:
        return []
    if x.layout in _SPARSE:
        indices_agree = all(map(_equal_dense, ours[:-1], theirs[:-1]))
        if not indices_agree and x.layout in (torch.sparse_bsr, torch.sparse_bsc):
            return [(x.to_dense(), y.to_dense())]
        if not indices_agree:
            x, y = x.to_sparse_coo().coalesce(), y.to_sparse_coo().coalesce()
            return [(x.values(), y.sparse_mask(x).values())]
        return [(ours[-1], theirs[-1])]
    if len(ours) != len(theirs) or any(
        a.shape != b.shape for a, b in zip(ours, theirs, strict=True)
    ):
        return []
    return list(zip(ours, theirs, strict=True))


def count_dropped(x: Tensor | None, result: Tensor | None) -> tuple[int, int]:
    """Return (how many nonzero elements of ``x`` are 0 in ``result``, how many were nonzero)."""
    dropped, elements = 0, 0
    for a, b in aligned_parts(x, result):
        nonzero = a != 0
        dropped += int((nonzero & (b == 0)).sum())
        elements += int(nonzero.sum())
    return dropped, elements


def count_zeros(x: Tensor) -> tuple[int, int]:
    """Return (how many of the stored values are 0, how many there are); (0, 0) on meta."""
    parts = value_parts(x) or []
    parts = parts[-1:] if x.layout in _SPARSE else parts
    return sum(int((p == 0).sum()) for p in parts), sum(p.numel() for p in parts)


def equal_tensors(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in layout, shape, dtype and values, where NaN equals NaN.

    Of sparse tensors the indices have to be equal too. Without values nothing else is compared.
    """
    if one.dtype != other.dtype or one.layout != other.layout or one.is_nested != other.is_nested:
        return False
    if shape_of(one) != shape_of(other):
        return False
    parts, others = value_parts(one.detach()), value_parts(other.detach())
    if parts is None or others is None:
        return parts is others
    return len(parts) == len(others) and all(map(_equal_dense, parts, others))


def _equal_dense(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def close_tensors(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal up to rounding, where NaN equals NaN."""
    if one.dtype != other.dtype or one.layout != other.layout or shape_of(one) != shape_of(other):
        return False
    parts, others = value_parts(one.detach()), value_parts(other.detach())
    if parts is None or others is None:
        return parts is others
    return len(parts) == len(others) and all(
        a.shape == b.shape
        and (_equal_dense(a, b) or (a.dtype != torch.bool and torch.allclose(a, b, equal_nan=True)))
        for a, b in zip(parts, others, strict=True)
    )


def largest_gap(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference of two tensors; infinite where their shapes differ.

    0 where there are no values to compare.
    """
    if shape_of(one) != shape_of(other):
        return float("inf")
    if kind_of(one) == kind_of(other) == "meta" or equal_tensors(one, other):
        return 0.0
    pairs = [*aligned_parts(one, other), *((b, a) for a, b in aligned_parts(other, one))]
    if not pairs:
        return float("inf")
    gaps = [(a - b).abs().nan_to_num(float("inf")) for a, b in pairs]
    return max((float(gap.max()) for gap in gaps if gap.numel()), default=0.0)


def write_tensor(tensor: Tensor, value: Tensor) -> None:
    """Give ``tensor`` the content of ``value``, unless it has it already."""
    if equal_tensors(tensor, value):
        return
    before, after = value_parts(tensor), value_parts(value)
    same_shapes = (
        before is not None
        and after is not None
        and [p.shape for p in before] == [p.shape for p in after]
    )
    if same_shapes and before is not None and after is not None and tensor.is_nested:
        for part, new in zip(before, after, strict=True):
            part.copy_(new)
    elif same_shapes and tensor.layout != torch.sparse_coo:
        tensor.copy_(value)
    else:
        tensor.data = value
