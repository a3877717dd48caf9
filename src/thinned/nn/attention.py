"""Layers of :mod:`thinned.functional.attention`."""

from __future__ import annotations

from typing import Any, get_args

from torch import Tensor

from .. import functional
from .._errors import unknown
from ..algebra.schedule import Schedule
from ..functional.attention import Method
from .method import MethodDropout


class DropAttention(MethodDropout):
    """Attention with dropout inside, off in evaluation: :func:`thinned.functional.drop_attention`;
    Vaswani et al. 2017.

    ``method``: ``"probabilities"`` (attention dropout), ``"keys"`` (DropKey) or ``"heads"``
    (DropHead).

    >>> DropAttention(0.1, "keys")
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
        super().__init__(functional.drop_attention, p=p, method=method, scale=scale)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        return super().forward(query, key, value, attn_mask, is_causal)


def DropHead(p: float | Schedule = 0.1) -> MethodDropout:
    """Zhou et al. 2020 on heads [b, h, ...]: :func:`thinned.functional.drop_head`."""
    return MethodDropout(functional.drop_head, p=p)


def DropKey(p: float | Schedule = 0.1) -> MethodDropout:
    """Li et al. 2023 on scores [b, ..., keys], before the softmax:
    :func:`thinned.functional.drop_key`.
    """
    return MethodDropout(functional.drop_key, p=p)
