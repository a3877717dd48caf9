# expect: none
# from: https://arxiv.org/abs/1706.02515
import torch
from torch import nn


class Critic(nn.Module):
    def __init__(self, d, activation="relu"):
        super().__init__()
        self.hidden = nn.Linear(d, 256)
        selu = activation == "selu"
        self.act = nn.SELU() if selu else nn.ReLU()
        self.drop = nn.AlphaDropout(p=0.1) if selu else nn.Dropout(p=0.1)
        self.value = nn.Linear(256, 1)

    def forward(self, x: torch.Tensor):
        return self.value(self.drop(self.act(self.hidden(x))))
