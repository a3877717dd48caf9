# expect: none
# from: https://github.com/baal-org/baal
import torch
import torch.nn.functional as F


class KeptElements(torch.nn.Module):
    """Dropout for Monte Carlo estimates: the masks are drawn in evaluation too."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p, True)


class KeptChannels(torch.nn.Module):
    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.dropout2d(x, self.p, training=True)
