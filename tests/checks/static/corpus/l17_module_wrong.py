# expect: L17
# from: https://github.com/chainer/chainer/issues/531
import torch.nn as nn


class Regressor(nn.Module):
    def __init__(self, d, drop_rate):
        super().__init__()
        self.drop_rate = drop_rate
        self.fc1 = nn.Linear(d, 100)
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = nn.Linear(100, 1)

    def forward(self, x):
        x = self.drop(self.fc1(x).relu())
        if not self.training:
            x *= 1.0 - self.drop_rate
        return self.fc2(x)
