# expect: L22
# from: https://arxiv.org/abs/1706.02515
import torch
from torch import nn


class Critic(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.hidden = nn.Linear(d, 256)
        self.act = nn.ReLU()
        self.drop = nn.AlphaDropout(p=0.1)
        self.value = nn.Linear(256, 1)

    def forward(self, x: torch.Tensor):
        return self.value(self.drop(self.act(self.hidden(x))))
