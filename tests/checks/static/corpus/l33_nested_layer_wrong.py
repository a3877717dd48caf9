# expect: L33
# from: https://github.com/dmlc/dgl/blob/master/examples/pytorch/seal/model.py
import torch
from torch import nn


class Pairs(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.score = nn.Bilinear(width, width, 1)
        self.input_dropout = nn.Dropout(0.25)

    def forward(self, left, right):
        if left.shape == right.shape:
            self.input_dropout(left)
        return torch.sigmoid(self.score(left, right))
