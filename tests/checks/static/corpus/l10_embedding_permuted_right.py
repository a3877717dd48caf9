# expect: none
# from: https://github.com/pytorch/pytorch/issues/77081
from torch import nn


class Tagger(nn.Module):
    def __init__(self, vocab, tags):
        super().__init__()
        self.embed = nn.Embedding(vocab, 100)
        self.drop = nn.Dropout1d(0.2)
        self.lstm = nn.LSTM(100, 64, batch_first=True, bidirectional=True)
        self.out = nn.Linear(128, tags)

    def forward(self, ids):
        x = self.embed(ids)
        x = self.drop(x.permute(0, 2, 1)).permute(0, 2, 1)
        x, _ = self.lstm(x)
        return self.out(x)
