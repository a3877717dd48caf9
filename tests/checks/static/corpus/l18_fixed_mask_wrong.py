# expect: L18
# from: https://github.com/yaringal/BayesianRNN
import torch
from torch import nn


class FixedDropout(nn.Module):
    def __init__(self, features, p=0.5):
        super().__init__()
        mask = torch.bernoulli(torch.full((features,), 1 - p)) / (1 - p)
        self.register_buffer("mask", mask)

    def forward(self, x):
        if self.training:
            return x * self.mask
        return x
