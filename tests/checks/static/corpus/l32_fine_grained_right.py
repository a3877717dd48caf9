# expect: none
# from: https://github.com/yangze0930/NTS-Net/issues/14
import torch
from torch import nn


class Navigator(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(p=0.5)
        self.concat_net = nn.Linear(2048, 200)

    def forward(self, x):
        feature = self.dropout(self.backbone(x))
        return self.concat_net(torch.flatten(feature, 1))
