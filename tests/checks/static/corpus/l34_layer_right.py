# expect: none
# from: https://github.com/zhouhaoyi/Informer2020/blob/main/models/attn.py
import torch.nn as nn
import torch.nn.functional as F


class Head(nn.Module):
    def __init__(self, width, classes, rate=0.3):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, classes)
        self.drop = nn.Dropout(rate)

    def forward(self, x):
        x = F.relu(self.inner(x))
        x = self.drop(x)
        return self.out(x)
