# expect: L3
# from: https://github.com/NVIDIA/Megatron-LM/pull/411
import torch.nn as nn


class TextClassifier(nn.Module):
    def __init__(self, vocab, dim, classes):
        super().__init__()
        self.emb = nn.EmbeddingBag(vocab, dim)
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Linear(dim, classes)

    def forward(self, ids):
        if self.training:
            h = self.emb(ids)
        else:
            self.drop.p = 0.0
            h = self.emb(ids)
        return self.fc(self.drop(h))
