# expect: L35
# from: https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html
import torch.nn as nn


class Tower(nn.Module):
    def __init__(self, width, rates):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in rates)
        self.noise = [nn.Dropout(rate) for rate in rates]

    def forward(self, x):
        for inner, noise in zip(self.layers, self.noise):
            x = noise(inner(x).relu())
        return x
