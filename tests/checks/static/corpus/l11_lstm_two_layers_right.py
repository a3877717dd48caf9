# expect: none
# from: https://github.com/pytorch/pytorch/issues/5985
import torch.nn as nn


class Forecaster(nn.Module):
    def __init__(self, n_features, hidden=64):
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, 2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(out[:, -1])
