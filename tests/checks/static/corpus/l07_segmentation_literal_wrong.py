# expect: L7
# from: https://github.com/explosion/thinc/issues/355
import torch
from torch.nn.functional import dropout2d as spatial_drop


class Decoder(torch.nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.out = torch.nn.Conv2d(channels // 2, classes, 1)

    def forward(self, x):
        x = torch.relu(self.up(x))
        x = spatial_drop(x, 0.2, training=True)
        return self.out(x)
