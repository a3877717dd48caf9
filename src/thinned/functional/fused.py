"""Pairs of operations in one pass over memory; the mask is not stored for the backward pass."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .. import presets
from .._errors import unknown
from ..engines.torch import dispatch
from ..engines.torch.tensor_key import TensorKey
from .core import KeyLike, check_rate, drop, resolve_key
from .inputs import dense_inputs
from .torch_functions import dropout, mode_of, prepared_dropout


@dense_inputs
def dropout_add(
    input: Tensor, residual: Tensor, p: float = 0.5, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Computes ``residual + dropout(input, p)``, the end of a sublayer of a transformer.

    It takes one pass over memory where the native or Triton kernels run.

    Args:
        input: [...], any shape.
        residual: A tensor that broadcasts with ``input``, mostly of its shape.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        The sum, of the broadcast shape.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> dropout_add(torch.ones(2, 4), torch.full((2, 4), 10.0), 0.5, key=Key(seed=1))
        tensor([[10., 10., 12., 10.],
                [12., 12., 12., 12.]])
    """
    check_rate(p)
    if not training or not input.numel() or p == 0:
        return residual + dropout(input, p, training)
    return dispatch.add(input, residual, *_prepare(input, p, key))


@dense_inputs
def dropout_add_layer_norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    p: float = 0.5,
    training: bool = True,
    eps: float = 1e-5,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Computes ``layer_norm(residual + dropout(input, p))``, the end of a post-norm sublayer.

    The normalization is over the last axis. On a GPU with Triton the forward pass is one kernel.

    Args:
        input: [b, ..., d].
        residual: [b, ..., d].
        weight: [d], the weight of the normalization.
        bias: [d], the bias of the normalization.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        eps: A small number that is added to the variance.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        [b, ..., d].

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> x, ones = torch.ones(2, 4), torch.ones(4)
        >>> dropout_add_layer_norm(x, x, ones, 0 * ones, 0.5, key=Key(seed=1))
        tensor([[-0.5773, -0.5773,  1.7320, -0.5773],
                [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    check_rate(p)
    fits = input.shape == residual.shape and input.dim() > 1 and input.numel() > 0
    if training and 0 < p < 1 and fits and dispatch.choose(input)[0] == "triton":
        return dispatch.add_norm(input, residual, weight, bias, eps, *_prepare(input, p, key))
    total = dropout_add(input, residual, p, training, key=key)
    return torch.nn.functional.layer_norm(total, weight.shape, weight, bias, eps)


@dense_inputs
def bias_act_dropout(
    input: Tensor,
    bias: Tensor | None,
    activation: Literal["relu", "gelu"] = "relu",
    p: float = 0.5,
    training: bool = True,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Computes ``dropout(activation(input + bias), p)``, the middle of a feed-forward layer.

    It saves less for the backward pass than the three operations: with ReLU one tensor instead of
    two, and no mask.

    Args:
        input: [b, ..., d].
        bias: [d] or any shape that broadcasts with ``input``; None is 0.
        activation: "relu" or "gelu".
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape of ``input + bias``.

    Raises:
        InputError: Where ``activation`` is unknown, or ``p`` is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> bias_act_dropout(torch.ones(2, 4), torch.arange(4.0) - 2, p=0.5, key=Key(seed=1))
        tensor([[0., 0., 2., 0.],
                [0., 0., 2., 4.]])
    """
    if activation not in ("relu", "gelu"):
        raise unknown("activation", activation, ("relu", "gelu"))
    check_rate(p)
    fits = bias is None or torch.broadcast_shapes(bias.shape, input.shape) == input.shape  # type: ignore[no-untyped-call]
    if training and input.numel() and 0 < p < 1 and activation == "relu" and fits:
        return dispatch.relu_dropout(input, bias, *_prepare(input, p, key))
    x = input if bias is None else input + bias
    x = torch.relu(x) if activation == "relu" else torch.nn.functional.gelu(x)
    return drop(x, presets.dropout(p), mode=mode_of(training), key=key)


def _prepare(x: Tensor, p: float, key: KeyLike) -> tuple[dispatch.PreparedPlan, TensorKey]:
    prepared = prepared_dropout(float(p), tuple(x.shape))
    return prepared, resolve_key(key, prepared.plan)
