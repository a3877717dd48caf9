# expect: none
# from: https://github.com/NVIDIA/Megatron-LM/pull/411
import torch.nn as nn


class TextClassifier(nn.Module):
    def __init__(self, vocab, dim, classes):
        super().__init__()
        self.emb = nn.EmbeddingBag(vocab, dim)
        self.rate = 0.4
        self.drop = nn.Dropout(self.rate)
        self.fc = nn.Linear(dim, classes)

    def forward(self, ids, step=0):
        if self.training:
            self.drop.p = self.rate * min(1.0, step / 1000)
        else:
            self.last_ids = ids
        return self.fc(self.drop(self.emb(ids)))

    def disable_dropout(self):
        self.drop.p = 0.0
