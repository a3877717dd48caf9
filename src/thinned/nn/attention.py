"""Layers that drop parts of attention: probabilities, keys or heads."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from .. import functional
from .._errors import real, unknown
from ..algebra.schedule import SCHEDULES, Schedule
from ..functional.attention import Method
from .method import FunctionLayer


class AttentionDropout(FunctionLayer):
    """Attention dropout: scaled dot-product attention that drops inside; evaluation drops nothing.

    Call it as ``layer(query, key, value, attn_mask=None, is_causal=False)``, the arguments of
    ``torch.nn.functional.scaled_dot_product_attention``: ``query`` [b, ..., l, e], ``key`` [b, ...,
    s, e] and ``value`` [b, ..., s, d] with the heads on axis 1. ``attn_mask`` broadcasts to [b,
    ..., l, s]: bool, True where a key takes part, or numbers that are added to the scores.
    ``is_causal`` hides the keys after each query, in place of a mask. Output: [b, ..., l, d].

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; below 1 for keys and heads.
        method: What is dropped: "probabilities" zeroes attention weights and divides the others by
            1 - p; "keys" is :class:`DropKey` on the scores, so each row still sums to 1; "heads" is
            :class:`DropHead` on the results.
        scale: The factor of the scores; None is 1 / sqrt(e).

    Raises:
        InputError: Where ``method`` is unknown or ``p`` is out of range.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.AttentionDropout(0.1, "keys")
        AttentionDropout(p=0.1, method=keys, scale=None)

    Reference:
        Vaswani et al. 2017, "Attention is all you need"; dropout of the weights is in the code of
        the authors, not in the text. :func:`thinned.functional.attention_dropout`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        method: Method = "probabilities",
        scale: float | None = None,
    ) -> None:
        if method not in get_args(Method):
            raise unknown("method", method, get_args(Method))
        if scale is not None and not isinstance(scale, SCHEDULES):
            real(scale, "scale", "it multiplies the scores; None is 1 / sqrt(e)")
        super().__init__(functional.attention_dropout, p=p, method=method, scale=scale)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        y: Tensor = super().forward(query, key, value, attn_mask, is_causal)
        return y


class DropHead(FunctionLayer):
    """DropHead: drops whole attention heads and scales the others so that the sum keeps its weight.

    Input: the results of the heads, [b, h, ...], before the output projection. Output: the same
    shape. Each example and head has its own Bernoulli draw, and kept heads are multiplied by h /
    (the number of kept heads). Where all heads of an example would be dropped, all are kept.

    Args:
        p: The probability of dropping a head, in [0, 1), or a schedule of it.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropHead(0.2)
        DropHead(p=0.2)

    Reference:
        Zhou, Ge, Wei, Zhou, Xu 2020, "Scheduled DropHead", section 3;
        :func:`thinned.functional.drop_head`.
    """

    def __init__(self, p: float | Schedule = 0.1) -> None:
        super().__init__(functional.drop_head, p=p)


class DropKey(FunctionLayer):
    """DropKey: sets attention scores to -inf before the softmax, so that the others still sum to 1.

    Input: scores [b, ..., keys]. Output: the same shape. Each element has its own Bernoulli draw.
    Where all keys of a query would be dropped, all are kept, so the softmax is never NaN. Apply it
    before the mask of attention, or see :class:`AttentionDropout`, which knows the mask.

    Args:
        p: The probability of dropping a key, in [0, 1), or a schedule of it.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropKey(0.2)
        DropKey(p=0.2)

    Reference:
        Li, Hu, Nie, Zhang, Sebe, Wang 2023, "DropKey", equation 5;
        :func:`thinned.functional.drop_key`.
    """

    def __init__(self, p: float | Schedule = 0.1) -> None:
        super().__init__(functional.drop_key, p=p)
