"""Dropout in the low-rank path of LoRA."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import InputError, real, whole
from ..algebra.schedule import Schedule
from .dropout import Dropout
from .module import disable_fused_kernels


class LoraDropout(nn.Module):
    """LoRA with dropout: W x + b + alpha / rank B A drop(x), where only A and B are trained.

    ``linear``: a ``torch.nn.Linear``, whose ``weight`` and ``bias`` are taken over under these
    names and frozen. ``rank`` r: ``down`` A [r, in] starts as torch's Linear does, ``up`` B [out,
    r] at 0, so the output is that of ``linear`` until B moves, whatever is drawn. ``p``: the rate
    on the input of the low-rank path alone, a coin for each element of x [b, ..., in]; 0.05 to 0.1
    is usual. Evaluation drops nothing. :meth:`merge` gives the plain Linear of it.

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
        """The rate, in [0, 1]."""
        return self.dropout.p

    @p.setter
    def p(self, rate: float) -> None:
        self.dropout.p = rate

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(F.linear(self.dropout(x), self.down), self.up)
        return F.linear(x, self.weight, self.bias) + self.alpha / self.rank * low

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """A plain Linear with W + alpha / rank B A: what evaluation computes, in one product. It
        shares no memory.
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
        return f"in_features={inputs}, out_features={out}, bias={self.bias is not None}, rank={self.rank}, alpha={self.alpha}"
