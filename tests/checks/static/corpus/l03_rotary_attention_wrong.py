# expect: L3
# from: https://github.com/NVIDIA/Megatron-LM/pull/411
import torch
from torch import nn
from flash_attn import flash_attn_func


class FlashCore(nn.Module):
    def __init__(self, attention_dropout=0.1, causal=True):
        super().__init__()
        self.causal = causal
        self.dropout_p = attention_dropout

    def forward(self, q, k, v):
        assert all(t.dtype in (torch.float16, torch.bfloat16) for t in (q, k, v))
        if not self.training:
            self.dropout_p = 0
        return flash_attn_func(q, k, v, self.dropout_p, causal=self.causal)
