# expect: none
# from: https://github.com/pytorch/pytorch/issues/26338
import torch
import torch.nn.functional as F


class SampledNeighborsNet(torch.nn.Module):
    """Two layers of sums over sampled neighbors."""

    def __init__(self, width, classes):
        super().__init__()
        self.first = torch.nn.Linear(width, 64)
        self.second = torch.nn.Linear(64, classes)

    def forward(self, x, adjacency):
        x = F.relu(self.first(adjacency @ x))
        return self.second(adjacency @ F.dropout(x, p=0.5, training=self.training))
