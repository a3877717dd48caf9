# expect: L1
# from: https://github.com/pytorch/pytorch/issues/26338
import torch.nn as nn
import torch.nn.functional as F


def residual(x, branch, rate):
    return x + F.dropout(branch, rate)


class Block(nn.Module):
    def __init__(self, width, rate=0.2):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.rate = rate

    def forward(self, x):
        return residual(x, self.inner(x), self.rate)
