"""torch's multi-head attention, with attention dropout that keys and modes reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..algebra.schedule import SCHEDULES, Schedule
from ..functional.attention import attention_scores, dropped_weights
from ..functional.core import Rate
from .module import RatedModule


class MultiheadAttention(RatedModule, nn.MultiheadAttention):
    """Multi-head attention of torch, with dropout of the attention weights that a key reaches.

    It is a ``torch.nn.MultiheadAttention``: arguments, parameters, names, results and the fused
    evaluation are the same, and checkpoints load both ways. What drops is a thinned layer:
    :func:`thinned.key`, :func:`thinned.sampling` and the other contexts reach it. A query that may
    attend to no key gets zeros while dropping, where torch returns NaN.

    Args:
        embed_dim: The size of queries and results.
        num_heads: The number of heads; it divides ``embed_dim``.
        dropout: The probability of dropping an attention weight, in [0, 1], or a schedule of it;
            also as the attribute ``p``.
        bias: Whether the projections have biases.
        add_bias_kv: Whether to add a learned key and value to each sequence.
        add_zero_attn: Whether to add a key and a value of zeros.
        kdim: The size of keys; None is ``embed_dim``.
        vdim: The size of values; None is ``embed_dim``.
        batch_first: Whether inputs are [b, t, e] and not [t, b, e].
        device: The device of the parameters.
        dtype: The type of the parameters.

    Raises:
        InputError: Where the rate is outside [0, 1].

    Example:
        >>> import torch
        >>> import thinned
        >>> import thinned.nn as tnn
        >>> layer = tnn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        >>> key, x = thinned.key(layer, seed=7), torch.ones(3, 5, 8)
        >>> key.at(step=0)
        >>> first, _ = layer(x, x, x)
        >>> key.at(step=0)
        >>> bool((layer(x, x, x)[0] == first).all())
        True

    Reference:
        Vaswani et al. 2017, "Attention is all you need"; dropout of the weights is in the code of
        the authors, not in the text.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float | Schedule = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rate = dropout(0) if isinstance(dropout, SCHEDULES) else dropout
        super().__init__(
            embed_dim,
            num_heads,
            rate,
            bias,
            add_bias_kv,
            add_zero_attn,
            kdim,
            vdim,
            batch_first,
            device,
            dtype,
        )
        self.set_initial_rate(dropout)

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> MultiheadAttention:
        """Return this layer with the parameters and the settings of torch's.

        Args:
            module: A ``torch.nn.MultiheadAttention``; its parameters are shared.

        Returns:
            The layer, in the mode of ``module``.

        Example:
            >>> from torch import nn
            >>> import thinned.nn as tnn
            >>> tnn.MultiheadAttention.from_torch(nn.MultiheadAttention(8, 2, dropout=0.1)).p
            0.1
        """
        layer = cls.__new__(cls)
        state = dict(module.__dict__)
        for name in ("_parameters", "_buffers", "_modules"):
            state[name] = state[name].copy()
        rate = state.pop("dropout")
        layer.__dict__.update(state)
        layer.set_initial_rate(rate)
        return layer

    @property
    def dropout(self) -> float:
        """The rate, under the name that it has in torch."""
        return self.p

    @dropout.setter
    def dropout(self, rate: float) -> None:
        self.p = rate

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        mode, rate = self.mode(), self.current_rate()
        dropping = mode == "sample" and _drops(rate)
        if not dropping and not (self.training and self.p):
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        F._mha_shape_check(query, key, value, key_padding_mask, attn_mask, self.num_heads)  # type: ignore[attr-defined]
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        batched = query.dim() == 3
        swap = batched and not self.batch_first
        inputs = [
            x.unsqueeze(0) if not batched else x.transpose(0, 1) if swap else x
            for x in [query, key, value]
        ]
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        result, weights = self._attend(
            inputs, attn_mask, key_padding_mask, rate if dropping else 0.0
        )
        if not batched:
            result, weights = result.squeeze(0), weights.squeeze(0)
        elif swap:
            result = result.transpose(0, 1)
        if not need_weights:
            return result, None
        return result, weights.mean(-3) if average_attn_weights else weights

    def _attend(
        self,
        inputs: list[Tensor],
        attn_mask: Tensor | None,
        padding: Tensor | None,
        rate: Rate,
    ) -> tuple[Tensor, Tensor]:
        """The result [b, l, e] and the dropped weights [b, h, l, s], for inputs [b, t, e]."""
        query, keys, values = self._projected(inputs)
        batch, length = query.shape[:2]
        mask = self._mask(attn_mask, padding, query, keys.shape[1])
        if self.bias_k is not None and self.bias_v is not None:
            keys = torch.cat([keys, self.bias_k.expand(batch, 1, -1)], 1)
            values = torch.cat([values, self.bias_v.expand(batch, 1, -1)], 1)
        if self.add_zero_attn:
            keys = torch.cat([keys, keys.new_zeros(batch, 1, keys.shape[2])], 1)
            values = torch.cat([values, values.new_zeros(batch, 1, values.shape[2])], 1)
        if mask is not None:  # keys that were added take part
            mask = F.pad(mask, (0, keys.shape[1] - mask.shape[-1]))
        scores = attention_scores(self._heads(query), self._heads(keys), mask)
        weights = dropped_weights(scores, rate, key=self.call_key() if _drops(rate) else None)
        weights = weights.to(values.dtype)
        result = (weights @ self._heads(values)).transpose(1, 2).reshape(batch, length, -1)
        return F.linear(result, self.out_proj.weight, self.out_proj.bias), weights

    def _heads(self, x: Tensor) -> Tensor:
        """[b, t, h e] as [b, h, t, e]."""
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _projected(self, inputs: list[Tensor]) -> list[Tensor]:
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        bias = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip(inputs, weights, bias, strict=True)]

    def _mask(
        self, attn_mask: Tensor | None, padding: Tensor | None, query: Tensor, keys: int
    ) -> Tensor | None:
        """What is added to the scores [b, h, l, s] for both masks; None without any."""
        batch, length = query.shape[:2]
        total = None
        if attn_mask is not None:
            total = _added(attn_mask, query)
            if total.dim() == 3:
                total = total.view(batch, self.num_heads, length, keys)
        if padding is not None:
            added = _added(padding, query).view(batch, 1, 1, keys)
            total = added if total is None else total + added
        return total


def _drops(rate: Rate) -> bool:
    return isinstance(rate, Tensor) or rate > 0.0


def _added(mask: Tensor, query: Tensor) -> Tensor:
    """A mask of torch's attention layers, True where a key is left out, as numbers to add."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask, -math.inf)
