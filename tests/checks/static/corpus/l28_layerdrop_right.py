# expect: none
# from: https://github.com/facebookresearch/fairseq/issues/2389
import random

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Encoder(nn.Module):
    def __init__(self, d=256, depth=6, layerdrop=0.1):
        super().__init__()
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(d, 4) for _ in range(depth))
        self.layerdrop = layerdrop

    def forward(self, x):
        for layer in self.layers:
            if self.training and random.random() < self.layerdrop:
                continue
            x = layer(x)
        return x


def wrap(rank):
    torch.cuda.set_device(rank)
    return DistributedDataParallel(Encoder().cuda(), device_ids=[rank], find_unused_parameters=True)
