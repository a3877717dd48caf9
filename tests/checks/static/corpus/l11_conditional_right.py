# expect: none
# from: https://github.com/pytorch/pytorch/issues/5985
from torch.nn import GRU, Embedding, Linear, Module


class Encoder(Module):
    def __init__(self, vocab, layers=1, dropout=0.5):
        super().__init__()
        self.embedding = Embedding(vocab, 300)
        self.rnn = GRU(
            input_size=300,
            hidden_size=150,
            num_layers=layers,
            bidirectional=True,
            dropout=dropout if layers > 1 else 0,
        )
        self.proj = Linear(300, 150)

    def forward(self, ids):
        states, _ = self.rnn(self.embedding(ids))
        return self.proj(states)
