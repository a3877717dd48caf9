# expect: L5
# from: https://github.com/luigibonati/mlcolvar/pull/205
from torch import nn


def tabular(inputs, outputs):
    return nn.Sequential(
        nn.Linear(inputs, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, outputs),
    )
