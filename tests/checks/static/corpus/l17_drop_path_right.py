# expect: none
# from: https://github.com/huggingface/pytorch-image-models
import torch
import torch.nn as nn


class DropPath(nn.Module):
    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        coin = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) < keep
        return x * coin / keep


class EMA(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p
        self.drop = DropPath(p)

    def forward(self, average, x):
        return average * (1 - self.p) + self.drop(x) * self.p
