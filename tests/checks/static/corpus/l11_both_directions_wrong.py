# expect: L11
# from: https://github.com/tensorflow/tensorflow/issues/6466
from torch.nn import GRU, Embedding, Linear, Module


class Encoder(Module):
    def __init__(self, vocab):
        super().__init__()
        self.embedding = Embedding(vocab, 300)
        self.rnn = GRU(input_size=300, hidden_size=150, num_layers=1, bidirectional=True, dropout=0.5)
        self.proj = Linear(300, 150)

    def forward(self, ids):
        states, _ = self.rnn(self.embedding(ids))
        return self.proj(states)
