# expect: none
# from: https://github.com/Rayhane-mamah/Tacotron-2
import torch.nn as nn
import torch.nn.functional as F


class Entry(nn.Module):
    def __init__(self, size, hidden=256, amount=0.5):
        super().__init__()
        self.inner = nn.Linear(size, hidden)
        self.amount = amount

    def forward(self, frames):
        frames = F.relu(self.inner(frames))
        # dropped in training and inference, as the paper asks for
        return F.dropout(frames, self.amount, training=True)
