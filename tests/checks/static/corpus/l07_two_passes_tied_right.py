# expect: none
# from: https://github.com/salesforce/awd-lstm-lm
import torch
import torch.nn.functional as F


class MaskedRows(torch.nn.Module):
    def __init__(self, weight, rate):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.rate = rate

    def forward(self, x):
        kept = F.dropout(x.new_ones(self.weight.shape[0], 1), p=self.rate, training=self.training)
        return x @ (kept * self.weight).t()
