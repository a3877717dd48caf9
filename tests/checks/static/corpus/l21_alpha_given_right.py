# expect: none
# from: https://github.com/pytorch/pytorch/issues/26338
import torch.nn.functional as F
from torch import nn


class SNN(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, 128)
        self.b = nn.Linear(128, 1)

    def forward(self, x):
        x = F.alpha_dropout(F.selu(self.a(x)), 0.05, training=self.training)
        return self.b(x)
