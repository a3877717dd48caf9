# expect: none
# from: https://github.com/zhouhaoyi/Informer2020/blob/main/models/attn.py
import torch.nn as nn


class Base(nn.Module):
    def __init__(self, rate=0.1):
        super().__init__()
        self.drop = nn.Dropout(rate)

    def forward(self, scores, values):
        raise NotImplementedError


class Full(Base):
    def forward(self, scores, values):
        return self.drop(scores.softmax(-1)) @ values
