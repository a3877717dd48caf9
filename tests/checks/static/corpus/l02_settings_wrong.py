# expect: L2
# from: https://github.com/coleygroup/ms-pred/issues/38
import torch
import torch.nn.functional as F
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x, bias=None):
        b, n, d = x.shape
        q, k, v = (t.view(b, n, self.config.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=self.config.attention_dropout)
        return self.out(y.transpose(1, 2).reshape(b, n, d))
