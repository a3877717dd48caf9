# expect: none
# from: https://github.com/pytorch/pytorch/issues/2649
import torch
from torch import nn

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.inp = nn.Linear(20, 64)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(64, 2)

    def forward(self, x):
        return self.out(self.drop(torch.relu(self.inp(x))))
