# expect: none
# from: https://github.com/google-research/electra/issues/61
import torch.nn as nn


class Discriminator(nn.Module):
    def __init__(self, hidden, keep_prob=0.9):
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(1 - keep_prob)
        self.out = nn.Linear(hidden, 1)

    def forward(self, h):
        return self.out(self.dropout(self.dense(h).relu()))
