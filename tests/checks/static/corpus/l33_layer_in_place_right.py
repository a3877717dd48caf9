# expect: none
# from: https://github.com/dmlc/dgl/blob/master/examples/pytorch/seal/model.py
import torch.nn as nn
import torch.nn.functional as F


class Head(nn.Module):
    def __init__(self, width, classes, rate=0.3):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, classes)
        self.drop = nn.Dropout(rate, inplace=True)

    def forward(self, x):
        x = F.relu(self.inner(x))
        self.drop(x)
        return self.out(x)
