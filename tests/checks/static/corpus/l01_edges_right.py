# expect: none
# from: https://github.com/pyg-team/pytorch_geometric
import torch
from torch_geometric.nn import GCNConv
from torch_geometric.utils import dropout_edge


class Net(torch.nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.conv = GCNConv(width, classes)

    def forward(self, x, edge_index):
        edge_index, _ = dropout_edge(edge_index, p=0.2, training=self.training)
        return self.conv(x, edge_index)
