# expect: none
# from: https://github.com/huggingface/transformers/pull/22024
import torch.nn.functional as F
from torch import nn


class Experts(nn.Module):
    def __init__(self, width, experts, drop):
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(experts))
        self.token_dropout = drop

    def forward(self, x):
        gates = self.router(x).softmax(-1)
        out = sum(g.unsqueeze(-1) * e(x) for g, e in zip(gates.unbind(-1), self.experts))
        if self.training:
            return F.dropout(out, self.token_dropout, True)
        return out
