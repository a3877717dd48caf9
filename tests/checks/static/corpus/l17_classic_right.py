# expect: none
# from: https://jmlr.org/papers/v15/srivastava14a.html
import torch
from torch import nn


class Maxout(nn.Module):
    """Dropout as first published: nothing is scaled in training, the weights are in evaluation."""

    def __init__(self, d, h, p=0.5):
        super().__init__()
        self.p = p
        self.lin = nn.Linear(d, 2 * h)
        self.out = nn.Linear(h, 10)

    def forward(self, x):
        h = self.lin(x).unflatten(-1, (-1, 2)).amax(-1)
        if self.training:
            h = h * torch.bernoulli(torch.full_like(h, 1 - self.p))
        else:
            h = h * (1 - self.p)
        return self.out(h)
