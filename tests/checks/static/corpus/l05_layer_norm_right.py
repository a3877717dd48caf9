# expect: none
# from: https://arxiv.org/abs/1801.05134
from torch import nn


def block(width):
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()
    )
