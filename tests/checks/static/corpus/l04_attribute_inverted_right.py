# expect: none
# from: https://github.com/deeplearningzerotoall/TensorFlow/issues/122
import torch
from torch import nn


class Generator(nn.Module):
    def __init__(self, width, keep_prob=0.8):
        super().__init__()
        self.keep_prob = 1 - keep_prob
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, x):
        return nn.functional.dropout(self.body(x), self.keep_prob, self.training)
