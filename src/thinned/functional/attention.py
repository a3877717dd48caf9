"""Dropout inside attention: of attention weights, of keys and of heads."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, real, unknown
from ..engines.torch import reference
from .core import KeyLike, Rate, bernoulli_mask, check_rate, inverse_keep, is_noop
from .inputs import dense_inputs

Method = Literal["probabilities", "keys", "heads"]


@dense_inputs
def attention_dropout(
    query: Tensor,
    keys: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    p: float = 0.1,
    training: bool = True,
    *,
    method: Method = "probabilities",
    scale: float | None = None,
    key: KeyLike = None,
) -> Tensor:
    """Attention with dropout inside: softmax(scale query keys^T + mask) value.

    The arguments and the layout are those of torch's ``scaled_dot_product_attention``. The methods:

    - "probabilities" zeroes attention weights a and divides the others by 1 - p. A row then sums to
      1 only on average, with the variance p / (1 - p) sum(a^2).
    - "keys" is :func:`drop_key` on the scores, so every row sums to 1. At least one of the keys
      that the mask allows is kept.
    - "heads" is :func:`drop_head` on the results.

    Evaluation, and p = 0, call torch's fused function without dropout; torch's own function drops
    in evaluation too unless its ``dropout_p`` is set to 0 there. A query returns
    zeros if all its keys are masked, as in torch.

    Args:
        query: [b, ..., l, e], with the heads as axis 1.
        keys: [b, ..., s, e]. The name is not ``key``, which is the random key.
        value: [b, ..., s, d].
        attn_mask: A tensor that broadcasts to [b, ..., l, s]: bool, True where a key takes part, or
            numbers that are added to the scores.
        is_causal: Whether to hide the keys after each query; not together with ``attn_mask``.
        p: The rate of dropping, in [0, 1]; below 1 for keys and heads.
        training: Whether to draw; False computes the evaluation.
        method: "probabilities", "keys" or "heads".
        scale: The factor of the scores; None is 1 / sqrt(e).
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        [b, ..., l, d].

    Raises:
        InputError: Where ``method`` is unknown, ``p`` is out of range, both ``attn_mask`` and
            ``is_causal`` are given, or method "heads" gets a query without an axis of heads.

    Example:
        >>> from thinned import Key
        >>> x = torch.eye(3).reshape(1, 1, 3, 3)  # one example, one head, three tokens
        >>> attention_dropout(x, x, x, p=0.5, key=Key(seed=1)).squeeze()
        tensor([[0.0000, 0.0000, 0.5289],
                [0.0000, 0.9422, 0.0000],
                [0.0000, 0.5289, 0.9422]])

    Reference:
        Vaswani et al. 2017, "Attention is all you need"; dropout of the attention weights is in the
        authors' code, not in the text.
    """
    if method not in get_args(Method):
        raise unknown("method", method, get_args(Method))
    if attn_mask is not None and is_causal:
        raise InputError(
            "attn_mask and is_causal=True exclude each other; put the causal mask into attn_mask"
        )
    if method == "heads" and query.dim() < 4:
        raise InputError(
            f"method='heads' needs a query of shape [b, h, l, e], but got {list(query.shape)}"
        )
    check_rate(p, below_one=method != "probabilities")
    if scale is not None and not isinstance(scale, Tensor):
        real(scale, "scale", "it multiplies the scores; None is 1 / sqrt(e)")
    if method == "heads" or is_noop(query, p, training):
        y = F.scaled_dot_product_attention(
            query, keys, value, attn_mask, 0.0, is_causal, scale=scale
        )
        return drop_head(y, p, training, key=key) if method == "heads" else y
    scores = attention_scores(query, keys, attn_mask, is_causal, scale)
    if method == "probabilities":
        weights = dropped_weights(scores, p, key=key)
    else:
        kept = bernoulli_mask(tuple(scores.shape), p, key, scores)
        allowed = scores != -math.inf
        kept = kept | ~(kept & allowed).any(-1, keepdim=True)
        weights = _softmax(scores.masked_fill(~kept, -math.inf))
    return weights.to(value.dtype) @ value


def dropped_weights(scores: Tensor, p: Rate, *, key: KeyLike = None) -> Tensor:
    """The attention weights of ``scores`` [b, ..., l, s], dropped at the rate ``p``."""
    weights = _softmax(scores)
    if not isinstance(p, Tensor) and p == 0:
        return weights
    return weights * bernoulli_mask(tuple(scores.shape), p, key, scores) * inverse_keep(p)


def attention_scores(
    query: Tensor,
    keys: Tensor,
    mask: Tensor | None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The scores [b, ..., l, s], in float32 at least; -inf where a key takes no part."""
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ keys.transpose(
        -1, -2
    )
    scores = scores.to(reference.wide(scores))
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis; zeros, with zero slopes, for a row of -inf."""
    masked = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(masked, 0.0).softmax(-1).masked_fill(masked, 0.0)


@dense_inputs
def drop_head(
    heads: Tensor, p: float = 0.1, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """DropHead: drops whole attention heads and rescales the others.

    One Bernoulli draw for each example and head. The kept heads of an example are multiplied by
    h / (number of kept heads), so that the sum over heads keeps its weight. Where all h heads of an
    example would be dropped (probability p^h), all are kept; published code divides by zero there.

    Args:
        heads: [b, h, ...], the heads before the output projection.
        p: The rate of dropping, in [0, 1).
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``heads``.

    Raises:
        InputError: Where ``heads`` has fewer than three axes, or ``p`` is not in [0, 1).

    Example:
        >>> from thinned import Key
        >>> drop_head(torch.ones(2, 4, 1), 0.5, key=Key(seed=1)).squeeze(-1)
        tensor([[0., 0., 4., 0.],
                [1., 1., 1., 1.]])

    Reference:
        Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead", section 3.
    """
    if heads.dim() < 3:
        raise InputError(f"drop_head needs heads of shape [b, h, ...], but got {list(heads.shape)}")
    check_rate(p, "the rate of heads", below_one=True)
    if is_noop(heads, p, training):
        return heads
    kept = _keep_all_if_none(bernoulli_mask(tuple(heads.shape), p, key, heads, "b h", "b h *"), 1)
    return heads * (kept * (heads.shape[1] / kept.sum(1, keepdim=True))).to(heads.dtype)


@dense_inputs
def drop_key(
    scores: Tensor, p: float = 0.1, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """DropKey: sets attention scores to -inf before the softmax, so that the rest still sums to 1.

    One Bernoulli draw for each element. Where all keys of a query would be dropped, all are kept,
    so this function never causes a NaN in the softmax. It does not see a mask that has already set
    scores to -inf: the keys that it keeps may all be masked ones. Apply such a mask afterwards and
    handle fully masked rows as without dropout, or use :func:`attention_dropout`, which does both.

    Args:
        scores: [b, ..., keys].
        p: The rate of dropping, in [0, 1).
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``scores``.

    Raises:
        InputError: Where ``p`` is not in [0, 1).

    Example:
        >>> from thinned import Key
        >>> drop_key(torch.zeros(2, 4), 0.5, key=Key(seed=1))
        tensor([[-inf, -inf, 0., -inf],
                [0., 0., 0., 0.]])

    Reference:
        Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5.
    """
    check_rate(p, "the rate of keys", below_one=True)
    if is_noop(scores, p, training):
        return scores
    kept = _keep_all_if_none(bernoulli_mask(tuple(scores.shape), p, key, scores), -1)
    return scores.masked_fill(~kept, -math.inf)


def _keep_all_if_none(kept: Tensor, axis: int) -> Tensor:
    """The mask, with all entries kept where none would be along ``axis``."""
    return kept | ~kept.any(axis, keepdim=True)
