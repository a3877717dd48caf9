# expect: none
# from: https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html
import torch.nn as nn
import torch.nn.functional as F


class Head(nn.Module):
    def __init__(self, width, classes, rate=0.3):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.out = nn.Linear(width, classes)
        self.drops = [nn.Dropout(rate) for _ in range(3)]
        self.kept = nn.ModuleList(self.drops)

    def forward(self, x):
        x = F.relu(self.inner(x))
        x = sum(drop(x) for drop in self.drops)
        return self.out(x)
