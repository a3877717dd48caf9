# expect: L1
# from: https://github.com/pytorch/pytorch/issues/26338
import torch.nn as nn
import torch.nn.functional as F


class StochasticEncoder(nn.Module):
    def __init__(self, width, latent, rate=0.2):
        super().__init__()
        self.mean = nn.Linear(width, latent)
        self.rate = rate

    def forward(self, x):
        return self.mean(F.dropout(x, self.rate))
