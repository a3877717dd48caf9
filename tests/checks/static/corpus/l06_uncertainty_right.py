# expect: none
# from: https://github.com/lightning-uq-box/lightning-uq-box/pull/173
import torch
from torch import nn


def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )


@torch.no_grad()
def mc_predict(model, x, samples=20):
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    draws = torch.stack([model(x).softmax(-1) for _ in range(samples)])
    return draws.mean(0), draws.var(0)
