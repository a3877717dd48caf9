# expect: none
# from: https://github.com/pytorch/pytorch/issues/69801
import torch.nn as nn


def image_encoder(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(width, width, 3), nn.ReLU())
