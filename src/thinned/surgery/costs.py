"""The number of multiplications of the torch functions that multiply."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_PRODUCTS = {
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    torch.bmm,
    torch.mm,
    Tensor.bmm,
    Tensor.mm,
}
_ADDED_PRODUCTS = {torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm}
RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
MULTIPLYING = frozenset(
    {F.linear} | _PRODUCTS | _ADDED_PRODUCTS | RECURRENT | CONVOLUTIONS | _ATTENTION
)


def _size(x: Tensor, axis: int) -> float:
    """The size of an axis, counted from the end; of a nested tensor, the mean size."""
    if not x.is_nested:
        return x.shape[axis]
    sizes = [part.shape[axis] for part in x.unbind()]
    return sum(sizes) / max(1, len(sizes))


def flops(func: Any, args: Any, kwargs: Any, result: Any) -> float:
    """Return the number of multiplications of one call; 0 for functions that do not multiply.

    Linear layers, convolutions, recurrent networks, matrix products and attention are counted.
    """
    if func not in MULTIPLYING:
        return 0.0
    if func is F.linear:
        return float(result.numel() * _size(args[0] if args else kwargs["input"], -1))
    if func in CONVOLUTIONS:
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        return float(result.numel() * weight.shape[1:].numel())
    if func in _PRODUCTS:
        return float(result.numel() * _size(args[0], -1))
    if func in _ADDED_PRODUCTS:
        return float(result.numel() * _size(args[1], -1))
    if func is F.scaled_dot_product_attention:
        query, keys = (
            args[0] if args else kwargs["query"],
            args[1] if len(args) > 1 else kwargs["key"],
        )
        return float(query.numel() * _size(keys, -2) + result.numel() * _size(keys, -2))
    if func is F.multi_head_attention_forward:
        query, keys = args[0], args[1]
        return float(
            2 * query.numel() * (query.shape[-1] + len(keys)) + 2 * keys.numel() * keys.shape[-1]
        )
    if func in RECURRENT:
        weights = [w for w in args[3 if isinstance(args[3], (list, tuple)) else 2] if w.dim() > 1]
        return float(sum(w.numel() for w in weights) * args[0].numel() // args[0].shape[-1])
    return 0.0
