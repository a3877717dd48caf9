"""Pairs of operations in one pass over memory."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .. import presets
from .._errors import unknown
from ..engines.torch import dispatch
from ..engines.torch.tensor_key import TensorKey
from .core import Keyed, drop, resolve_key
from .torch_functions import dropout, elementwise, mode_of


def dropout_add(
    input: Tensor, residual: Tensor, p: float = 0.5, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """``residual + dropout(input, p)``, in one pass over memory where the native kernels run.

    ``residual``: of a shape that broadcasts with ``input``. The end of a transformer's sublayer.
    """
    if not training or not input.numel() or p == 0:
        return residual + dropout(input, p, training)
    return dispatch.add(input, residual, *_drawn(input, p, key))


def dropout_add_layer_norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    p: float = 0.5,
    training: bool = True,
    eps: float = 1e-5,
    *,
    key: Keyed = None,
) -> Tensor:
    """``layer_norm(residual + dropout(input, p))`` over the last axis: the end of a post-norm
    sublayer.

    ``weight`` and ``bias``: [d]. On a GPU with Triton the forward pass of [b, ..., d] is one
    kernel.
    """
    fits = input.shape == residual.shape and input.dim() > 1 and input.numel() > 0
    if training and 0 < p < 1 and fits and dispatch.choose(input)[0] == "triton":
        return dispatch.add_norm(input, residual, weight, bias, eps, *_drawn(input, p, key))
    total = dropout_add(input, residual, p, training, key=key)
    return torch.nn.functional.layer_norm(total, weight.shape, weight, bias, eps)


def bias_act_dropout(
    input: Tensor,
    bias: Tensor | None,
    activation: Literal["relu", "gelu"] = "relu",
    p: float = 0.5,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """``dropout(activation(input + bias), p)``, saving less: for ReLU one tensor instead of two and
    no mask.

    ``bias``: of a shape that broadcasts with ``input``, or None. The middle of a transformer's
    feed-forward layer.
    """
    if activation not in ("relu", "gelu"):
        raise unknown("activation", activation, ("relu", "gelu"))
    fits = bias is None or torch.broadcast_shapes(bias.shape, input.shape) == input.shape  # type: ignore[no-untyped-call]
    if training and input.numel() and 0 < p < 1 and activation == "relu" and fits:
        return dispatch.rectified(input, bias, *_drawn(input, p, key))
    x = input if bias is None else input + bias
    x = torch.relu(x) if activation == "relu" else torch.nn.functional.gelu(x)
    return drop(x, presets.dropout(p), mode=mode_of(training), key=key)


def _drawn(x: Tensor, p: float, key: Keyed) -> tuple[dispatch.PreparedPlan, TensorKey]:
    ready = elementwise(float(p), tuple(x.shape))
    return ready, resolve_key(key, ready.plan)
