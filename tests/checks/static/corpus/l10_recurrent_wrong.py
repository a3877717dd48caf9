# expect: L10
# from: https://github.com/pytorch/pytorch/issues/77081
import torch
import torch.nn.functional as F


class Sentiment(torch.nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab, 128)
        self.gru = torch.nn.GRU(128, 64, batch_first=True)
        self.fc = torch.nn.Linear(64, 2)

    def forward(self, tokens):
        states, last = self.gru(self.embedding(tokens))
        states = F.dropout2d(states, 0.3, self.training)
        return self.fc(states.mean(1))
