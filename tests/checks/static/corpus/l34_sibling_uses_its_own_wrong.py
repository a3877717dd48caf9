# expect: L34
# from: https://github.com/zhouhaoyi/Informer2020/blob/main/models/attn.py
import torch.nn as nn


class Full(nn.Module):
    def __init__(self, rate=0.1):
        super().__init__()
        self.drop = nn.Dropout(rate)

    def forward(self, scores, values):
        return self.drop(scores.softmax(-1)) @ values


class Sparse(nn.Module):
    def __init__(self, rate=0.1, top=8):
        super().__init__()
        self.top = top
        self.drop = nn.Dropout(rate)

    def forward(self, scores, values):
        least = scores.topk(self.top).values[..., -1:]
        return scores.masked_fill(scores < least, float("-inf")).softmax(-1) @ values
