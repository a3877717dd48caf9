# expect: L1
# from: https://github.com/pytorch/pytorch/issues/26338
from torch import nn
from torch.nn import functional as fun


class GCN(nn.Module):
    def __init__(self, features, hidden, classes, rate=0.5):
        super(GCN, self).__init__()
        self.lin1 = nn.Linear(features, hidden)
        self.lin2 = nn.Linear(hidden, classes)
        self.rate = rate

    def forward(self, x, adj):
        x = adj @ self.lin1(x)
        x = fun.relu(x)
        x = fun.dropout(x, self.rate)
        return fun.log_softmax(adj @ self.lin2(x), dim=-1)
