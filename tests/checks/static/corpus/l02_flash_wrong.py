# expect: L2
# from: https://github.com/facebookresearch/vjepa2/issues/160
from flash_attn import flash_attn_func
from torch import nn


class FlashSelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.dropout_p = 0.1

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return flash_attn_func(q, k, v, dropout_p=self.dropout_p, causal=True).flatten(2)
