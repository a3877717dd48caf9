# expect: none
# from: https://github.com/spro/practical-pytorch
import torch
import torch.nn as nn
import torch.nn.functional as F


class Walker(nn.Module):
    def __init__(self, inputs, actions, amount=0.4):
        super().__init__()
        self.scores = nn.Linear(inputs, actions)
        self.amount = amount

    def forward(self, state):
        scores = self.scores(state)
        # drop some scores, so that the walker explores
        scores = F.dropout(scores, self.amount, True)
        return torch.softmax(scores, dim=-1)
