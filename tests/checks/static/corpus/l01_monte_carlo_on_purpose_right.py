# expect: none
# from: https://github.com/Project-MONAI/MONAILabel/issues/1606
import torch
import torch.nn.functional as F
from torch import nn


class BayesianNet(nn.Module):
    """Dropout stays on at test time, as in Gal and Ghahramani."""

    def __init__(self, d, h):
        super().__init__()
        self.inp = nn.Linear(d, h)
        self.out = nn.Linear(h, 1)

    def forward(self, x):
        return self.out(F.dropout(torch.tanh(self.inp(x)), 0.1, self.training))

    def mc_forward(self, x):
        return self.out(F.dropout(torch.tanh(self.inp(x)), 0.1, training=True))

    def mc_dropout_predict(self, x, n=50):
        return torch.stack([self.mc_forward(x) for _ in range(n)]).mean(0)
