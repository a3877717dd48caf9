"""Dropout in the low-rank path of LoRA."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import InputError, real, whole
from ..algebra.schedule import Schedule
from .dropout import Dropout
from .module import CheckedArguments, disable_fused_kernels


class LoraDropout(CheckedArguments, nn.Module):
    """LoRA with dropout: W x + b + alpha / rank B A drop(x), with A and B as its only parameters.

    Input: [b, ..., in]. Output: [b, ..., out]. Dropout acts on the input of the low-rank path
    alone, with one Bernoulli draw for each element; evaluation drops nothing. ``weight`` and
    ``bias`` of the linear layer keep their names and are frozen. ``down`` is A [rank, in],
    initialized as torch's Linear; ``up`` is B [out, rank], initialized with 0, so the output is
    that of ``linear`` until B is trained. :meth:`merge` returns the equivalent Linear.

    Args:
        linear: A ``torch.nn.Linear``; its weight and bias are shared, and frozen.
        rank: The rank of the low-rank path, from 1 to the smaller size of the weight.
        alpha: The scale of the low-rank path, divided by ``rank``.
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.05 to 0.1 is usual.

    Raises:
        InputError: Where ``linear`` is another module, or a number is out of range.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.LoraDropout(nn.Linear(16, 32), rank=4, p=0.1)
        LoraDropout(
          in_features=16, out_features=32, bias=True, rank=4, alpha=16.0
          (dropout): Dropout(p=0.1, inplace=False)
        )

    Reference:
        Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen 2022, "LoRA: low-rank adaptation of large
        language models", section 4.1.
    """

    def __init__(
        self, linear: nn.Linear, rank: int = 8, alpha: float = 16.0, p: float | Schedule = 0.05
    ) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise InputError(
                f"LoraDropout needs a torch.nn.Linear, but got {type(linear).__name__}"
            )
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.rank = whole(rank, "rank", 1, min(linear.in_features, linear.out_features))
        self.alpha = real(alpha, "alpha")
        self.dropout = Dropout(p)
        self.weight = linear.weight.requires_grad_(False)
        self.bias = linear.bias if linear.bias is None else linear.bias.requires_grad_(False)
        self.down = nn.Parameter(self.weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.train(linear.training)
        disable_fused_kernels(self)

    @property
    def p(self) -> float:
        """The probability of dropping, in [0, 1]."""
        return self.dropout.p

    @p.setter
    def p(self, rate: float) -> None:
        self.dropout.p = rate

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(F.linear(self.dropout(x), self.down), self.up)
        return F.linear(x, self.weight, self.bias) + self.alpha / self.rank * low

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Build the Linear with the weight W + alpha / rank B A: what evaluation computes.

        Returns:
            A new ``torch.nn.Linear`` that shares no memory with this layer.
        """
        out, inputs = self.weight.shape
        merged = nn.Linear(
            inputs, out, self.bias is not None, device=self.weight.device, dtype=self.weight.dtype
        )
        merged.weight.copy_(self.weight + self.alpha / self.rank * (self.up @ self.down))
        if self.bias is not None:
            merged.bias.copy_(self.bias)
        return merged.train(self.training)

    def extra_repr(self) -> str:
        out, inputs = self.weight.shape
        bias = self.bias is not None
        return (
            f"in_features={inputs}, out_features={out}, bias={bias}, rank={self.rank}, "
            f"alpha={self.alpha}"
        )
