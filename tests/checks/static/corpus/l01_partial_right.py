# expect: none
# from: https://github.com/pytorch/pytorch/issues/26338
from functools import partial

import torch.nn as nn
import torch.nn.functional as F


class Mixer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.noise = partial(F.dropout, p=0.2)

    def forward(self, x):
        return self.inner(self.noise(x, training=self.training))
