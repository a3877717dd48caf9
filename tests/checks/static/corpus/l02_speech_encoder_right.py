# expect: none
# from: https://github.com/wenet-e2e/wenet/issues/2699
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as sdpa


class MultiHeadedAttention(nn.Module):
    def __init__(self, n_head: int, n_feat: int, dropout_rate: float):
        super().__init__()
        self.h = n_head
        self.linear_qkv = nn.Linear(n_feat, 3 * n_feat)
        self.dropout_rate = dropout_rate

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.linear_qkv(x).chunk(3, -1)
        rate = self.dropout_rate * self.training
        out = sdpa(self.split(q), self.split(k), self.split(v), mask, rate)
        return out.transpose(1, 2).flatten(2)

    def split(self, x):
        return x.unflatten(-1, (self.h, -1)).transpose(1, 2)
