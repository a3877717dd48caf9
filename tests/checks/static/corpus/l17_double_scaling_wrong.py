# expect: L17
# from: https://github.com/keras-team/keras/pull/8069
import torch.nn.functional as F
from torch import nn


class Maxout(nn.Module):
    def __init__(self, d, h, p=0.5):
        super().__init__()
        self.p = p
        self.lin = nn.Linear(d, 2 * h)
        self.out = nn.Linear(h, 10)

    def forward(self, x):
        h = self.lin(x).unflatten(-1, (-1, 2)).amax(-1)
        if self.training:
            h = F.dropout(h, self.p, training=True)
        else:
            h = h * (1 - self.p)
        return self.out(h)
