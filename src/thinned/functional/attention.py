"""What happens inside attention."""

from __future__ import annotations

import math

from torch import Tensor

from .._errors import InputError, probability
from .core import Keyed, coins, nothing


def drop_head(heads: Tensor, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """DropHead: whole attention heads fall, and the rest is scaled so that the sum over heads keeps its weight.

    ``heads`` [b, h, ...], before the output projection; ``p`` in [0, 1). One coin for each example and head; survivors are
    multiplied by h / (how many stayed) in their example. Where all h heads of an example would fall (probability p^h), all
    stay: published code divides by zero there.

    Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead", section 3.
    """
    if heads.dim() < 3:
        raise InputError(f"drop_head needs heads of shape [b, h, ...], but got {list(heads.shape)}")
    probability(p, "the rate of heads", below_one=True)
    if nothing(heads, p, training):
        return heads
    stays = _some(coins(tuple(heads.shape), p, key, heads, "b h", "b h *"), 1)
    return heads * (stays * (heads.shape[1] / stays.sum(1, keepdim=True))).to(heads.dtype)


def drop_key(scores: Tensor, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """DropKey: attention scores fall to -inf before the softmax, so that the rest still sums to 1.

    ``scores`` [b, ..., keys]; ``p`` in [0, 1). One coin for each element. Where all keys of a query would fall, all stay,
    so the softmax is never NaN. Keys that a mask already put at -inf may be all that stays: apply that mask after this and
    such rows are yours to handle, as they are without dropout.

    Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5.
    """
    probability(p, "the rate of keys", below_one=True)
    if nothing(scores, p, training):
        return scores
    stays = _some(coins(tuple(scores.shape), p, key, scores), -1)
    return scores.masked_fill(~stays, -math.inf)


def _some(stays: Tensor, axis: int) -> Tensor:
    """The mask, with all where along ``axis`` nothing would stay."""
    return stays | ~stays.any(axis, keepdim=True)
