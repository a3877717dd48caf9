"""What happens inside attention."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, unknown
from ..engines.torch import reference
from .core import Keyed, bernoulli_mask, check_rate, inverse_keep, is_noop

Method = Literal["probabilities", "keys", "heads"]


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
    key: Keyed = None,
) -> Tensor:
    """Attention with dropout inside: softmax(query keys' scale + mask) value, as torch's
    scaled_dot_product_attention.

    ``method``: ``"probabilities"`` zeroes attention weights a, one coin each, and divides the rest
    by 1 - p, so that a row sums to 1 on average alone: Var = p / (1 - p) sum(a^2). ``"keys"`` is
    :func:`drop_key` on the scores, which keeps every row's sum; of the keys that the mask allows
    one stays at least. ``"heads"`` is :func:`drop_head` on the results. ``query`` [b, ..., l, e],
    ``keys`` [b, ..., s, e], ``value`` [b, ..., s, d], with heads as axis 1; ``attn_mask``
    broadcasts to [b, ..., l, s]: bool, True where a key takes part, or numbers that are added to
    the scores; ``is_causal`` in its place hides the keys after each query. ``scale``: 1 / sqrt(e)
    by default. ``key`` is the noise's. ``p`` in [0, 1], for keys and heads below 1.

    Evaluation, and p = 0, is torch's fused function without dropout: torch's own drops in
    evaluation too, unless its ``dropout_p`` is set to 0 there. A query whose keys are all masked
    gives zeros, as it does in torch.

    Vaswani et al. 2017, "Attention is all you need"; dropout of the weights is in the authors'
    code, not in the text.
    """
    if method not in get_args(Method):
        raise unknown("method", method, get_args(Method))
    if attn_mask is not None and is_causal:
        raise InputError(
            "is_causal stands in the place of attn_mask; put the causal mask into attn_mask"
        )
    if method == "heads" and query.dim() < 4:
        raise InputError(
            f"method='heads' needs a query of shape [b, h, l, e], but got {list(query.shape)}"
        )
    check_rate(p, below_one=method != "probabilities")
    if method == "heads" or is_noop(query, p, training):
        y = F.scaled_dot_product_attention(
            query, keys, value, attn_mask, 0.0, is_causal, scale=scale
        )
        return drop_head(y, p, training, key=key) if method == "heads" else y
    scores = _scores(query, keys, attn_mask, is_causal, scale)
    stays = bernoulli_mask(tuple(scores.shape), p, key, scores)
    if method == "probabilities":
        weights = _softmax(scores) * stays * inverse_keep(p)
    else:
        allowed = scores != -math.inf
        stays = stays | ~(stays & allowed).any(-1, keepdim=True)
        weights = _softmax(scores.masked_fill(~stays, -math.inf))
    return weights.to(value.dtype) @ value


def _scores(
    query: Tensor, keys: Tensor, mask: Tensor | None, is_causal: bool, scale: float | None
) -> Tensor:
    """Attention's scores [b, ..., l, s], in float32 at least; -inf where a key takes no part."""
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
    none = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(none, 0.0).softmax(-1).masked_fill(none, 0.0)


def drop_head(heads: Tensor, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """DropHead: whole attention heads fall, and the rest is scaled so that the sum over heads keeps
    its weight.

    ``heads`` [b, h, ...], before the output projection; ``p`` in [0, 1). One coin for each example
    and head; survivors are multiplied by h / (how many stayed) in their example. Where all h heads
    of an example would fall (probability p^h), all stay: published code divides by zero there.

    Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead", section 3.
    """
    if heads.dim() < 3:
        raise InputError(f"drop_head needs heads of shape [b, h, ...], but got {list(heads.shape)}")
    check_rate(p, "the rate of heads", below_one=True)
    if is_noop(heads, p, training):
        return heads
    stays = _some(bernoulli_mask(tuple(heads.shape), p, key, heads, "b h", "b h *"), 1)
    return heads * (stays * (heads.shape[1] / stays.sum(1, keepdim=True))).to(heads.dtype)


def drop_key(scores: Tensor, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """DropKey: attention scores fall to -inf before the softmax, so that the rest still sums to 1.

    ``scores`` [b, ..., keys]; ``p`` in [0, 1). One coin for each element. Where all keys of a query
    would fall, all stay, so the softmax is never NaN. Keys that a mask already put at -inf may be
    all that stays: apply that mask after this and such rows are yours to handle, as they are
    without dropout.

    Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5.
    """
    check_rate(p, "the rate of keys", below_one=True)
    if is_noop(scores, p, training):
        return scores
    stays = _some(bernoulli_mask(tuple(scores.shape), p, key, scores), -1)
    return scores.masked_fill(~stays, -math.inf)


def _some(stays: Tensor, axis: int) -> Tensor:
    """The mask, with all where along ``axis`` nothing would stay."""
    return stays | ~stays.any(axis, keepdim=True)
