# expect: none
# from: https://github.com/yaringal/BayesianRNN
import torch
import torch.nn.functional as F
from torch import nn


class SparseLinear(nn.Linear):
    """A layer with a fixed random pattern of connections."""

    def __init__(self, inputs, outputs, density=0.2):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.bernoulli(torch.full((outputs, inputs), density)))

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)
