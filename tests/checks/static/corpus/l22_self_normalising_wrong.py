# expect: L22
# from: https://github.com/cchallu/nbeatsx/issues/1
from torch import nn


def snn(d, width, depth, out):
    return nn.Sequential(
        nn.Linear(d, width), nn.SELU(), nn.Dropout(0.1), nn.Linear(width, width), nn.SELU(), nn.Dropout(0.1), nn.Linear(width, out)
    )
