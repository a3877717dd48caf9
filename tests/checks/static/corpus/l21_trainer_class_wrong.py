# expect: L21
# from: https://github.com/shubhamagarwal92/mmd/issues/14
import torch
from torch import nn


class Trainer:
    def __init__(self, vocabulary, loaders):
        self.model = nn.Sequential(nn.EmbeddingBag(vocabulary, 64), nn.Dropout(0.4), nn.Linear(64, 2))
        self.model.train()
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.train_loader, self.val_loader = loaders

    def fit(self, epochs):
        for epoch in range(epochs):
            for x, y in self.train_loader:
                loss = nn.functional.cross_entropy(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
            print(epoch, self.evaluate())

    def evaluate(self):
        self.model.eval()
        with torch.no_grad():
            hits = [(self.model(x).argmax(1) == y).float().mean() for x, y in self.val_loader]
        return torch.stack(hits).mean()
