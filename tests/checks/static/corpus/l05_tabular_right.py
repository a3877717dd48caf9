# expect: none
# from: https://arxiv.org/abs/1801.05134
from torch import nn


def tabular(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, outputs),
    )
