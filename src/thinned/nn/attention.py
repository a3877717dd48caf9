"""Layers of :mod:`thinned.functional.attention`."""

from __future__ import annotations

from typing import Any, get_args

from torch import Tensor

from .. import functional
from .._errors import unknown
from ..algebra.schedule import Schedule
from ..functional.attention import Method
from .method import FunctionLayer


class AttentionDropout(FunctionLayer):
    """Attention with dropout inside, off in evaluation: :func:`thinned.functional.attention_dropout`;
    Vaswani et al. 2017.

    ``method``: ``"probabilities"`` (attention dropout), ``"keys"`` (DropKey) or ``"heads"``
    (DropHead).

    >>> AttentionDropout(0.1, "keys")
    DropAttention(drop_attention, p=0.1, method=keys, scale=None)
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        method: Method = "probabilities",
        scale: float | None = None,
    ) -> None:
        if method not in get_args(Method):
            raise unknown("method", method, get_args(Method))
        super().__init__(functional.attention_dropout, p=p, method=method, scale=scale)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        return super().forward(query, key, value, attn_mask, is_causal)


class DropHead(FunctionLayer):
    """Zhou et al. 2020 on heads [b, h, ...]: :func:`thinned.functional.drop_head`."""

    def __init__(self, p: float | Schedule = 0.1) -> None:
        super().__init__(functional.drop_head, p=p)


class DropKey(FunctionLayer):
    """Li et al. 2023 on scores [b, ..., keys], before the softmax:
    :func:`thinned.functional.drop_key`.
    """

    def __init__(self, p: float | Schedule = 0.1) -> None:
        super().__init__(functional.drop_key, p=p)
