# expect: L25
# from: https://github.com/yhenon/pytorch-retinanet
import torch
from torch import nn


def measure(model: nn.Module, loader):
    model.training = False
    with torch.no_grad():
        return [model(x).argmax(-1) for x in loader]


def create():
    return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 2))
