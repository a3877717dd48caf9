# expect: L19
# from: https://github.com/pytorch/pytorch/issues/152028
import torch.nn as nn


class Head(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.drop = nn.Dropout(p=1)
        self.fc = nn.Linear(d, 3)

    def forward(self, x):
        return self.fc(self.drop(x))
