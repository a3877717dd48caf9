# expect: none
# from: https://github.com/allenai/OLMo-core/pull/828
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    def __init__(self, d, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.drop(self.ff(self.norm(x)))


class Stack(nn.Module):
    def __init__(self, d, depth, dropout=0.1):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d, dropout) for _ in range(depth))
        self.dropout = dropout

    def forward(self, x: torch.Tensor):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=self.dropout > 0)
        return x
