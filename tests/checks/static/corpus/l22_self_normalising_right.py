# expect: none
# from: https://github.com/bioinf-jku/SNNs
from torch import nn


def snn(d, width, depth, out):
    return nn.Sequential(
        nn.Linear(d, width), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(width, width), nn.SELU(), nn.Linear(width, out)
    )
