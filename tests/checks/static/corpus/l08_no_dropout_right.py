# expect: none
# from: https://github.com/pytorch/torchtitan/issues/1323
import torch.nn as nn
import torch.utils.checkpoint as cp


class ResBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x):
        return x + cp.checkpoint(self.body, x, preserve_rng_state=False, use_reentrant=True)
