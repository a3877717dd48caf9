# expect: L10
# from: https://github.com/pytorch/pytorch/issues/69801
import torch
from torch import nn


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.drop = nn.Dropout1d(0.3)
        self.out = nn.Linear(5408, 10)

    def forward(self, x):
        x = torch.flatten(torch.relu(self.conv(x)), 1)
        return self.out(self.drop(x))
