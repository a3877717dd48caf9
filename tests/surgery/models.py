"""Models of many kinds for the tests of policies, and what tests compare of a model."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from thinned.surgery.rates import rate_of

GEN = torch.Generator().manual_seed(0)
X = torch.randn(4, 6, generator=GEN)
IMAGE = torch.randn(4, 1, 8, 8, generator=GEN)
WORDS = torch.randint(0, 20, (3, 5), generator=GEN)
T = torch.nn


def mlp():
    return T.Sequential(T.Linear(6, 16), T.ReLU(), T.Linear(16, 16), T.GELU(), T.Linear(16, 3))


def cnn():
    return T.Sequential(
        T.Conv2d(1, 4, 3),
        T.ReLU(),
        T.MaxPool2d(2),
        T.Flatten(),
        T.Linear(36, 8),
        T.ReLU(),
        T.Dropout(0.3),
        T.Linear(8, 3),
    )


def pooled():
    """Dropout after pooling and before flattening."""
    return T.Sequential(
        T.Conv2d(1, 4, 3), T.ReLU(), T.MaxPool2d(2), T.Dropout(0.1), T.Flatten(), T.Linear(36, 3)
    )


def normed():
    return T.Sequential(
        T.Conv2d(1, 4, 3),
        T.BatchNorm2d(4),
        T.ReLU(),
        T.Conv2d(4, 4, 3),
        T.ReLU(),
        T.BatchNorm2d(4),
        T.Flatten(),
        T.Linear(64, 3),
    )


class Block(T.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = T.Conv2d(4, 4, 3, padding=1), T.BatchNorm2d(4)
        self.conv2, self.bn2 = T.Conv2d(4, 4, 3, padding=1), T.BatchNorm2d(4)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return F.relu(y)


class Residual(T.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.head = (
            T.Conv2d(1, 4, 3),
            T.Sequential(*(Block() for _ in range(4))),
            T.Linear(4, 3),
        )

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Loop(T.Module):
    """Residual blocks in the code of one module."""

    def __init__(self, outside=False):
        super().__init__()
        self.stem, self.fs, self.out = (
            T.Linear(6, 8),
            T.ModuleList(T.Linear(8, 8) for _ in range(4)),
            T.Linear(8, 2),
        )
        self.outside = outside

    def forward(self, x):
        x = self.stem(x)
        for f in self.fs:
            x = x + (F.relu(f(x)) if self.outside else f(F.relu(x)))
        return self.out(x)


class Encoder(T.Module):
    def __init__(self, rate=0.0):
        super().__init__()
        self.words, self.places = T.Embedding(20, 8), T.Embedding(10, 8)
        layer = T.TransformerEncoderLayer(8, 2, 16, dropout=rate, batch_first=True)
        self.enc, self.out = T.TransformerEncoder(layer, 2), T.Linear(8, 20)

    def forward(self, i):
        return self.out(self.enc(self.words(i) + self.places(torch.arange(i.shape[1]))))


class Vision(T.Module):
    """Patches, then attention."""

    def __init__(self):
        super().__init__()
        self.patches, self.out = T.Conv2d(1, 8, 4, stride=4), T.Linear(8, 3)
        self.blocks = T.ModuleList(
            T.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)
        )

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean(1))


class Language(T.Module):
    def __init__(self, first=True):
        super().__init__()
        self.words, self.core, self.out = (
            T.Embedding(20, 8),
            T.LSTM(8, 8, 2, batch_first=first),
            T.Linear(8, 20),
        )

    def forward(self, i):
        return self.out(self.core(self.words(i))[0])


class GCNConv(T.Module):
    """A graph layer that is recognized by the name of its class."""

    def __init__(self, a, b):
        super().__init__()
        self.lin = T.Linear(a, b)

    def forward(self, x, edges):
        return torch.zeros(x.shape[0], self.lin.out_features).index_add(
            0, edges[1], self.lin(x)[edges[0]]
        )


class Graph(T.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = GCNConv(6, 8), GCNConv(8, 2)

    def forward(self, x, edges):
        return self.two(F.relu(self.one(x, edges)), edges)


EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])


class Functional(T.Module):
    """Activations that are functions, and a gate."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.gate = (
            T.Linear(6, 8),
            T.Linear(8, 8),
            T.Linear(8, 3),
            T.Linear(8, 8),
        )

    def forward(self, x):
        h = F.relu(self.a(x))
        h = torch.tanh(self.b(h)) * torch.sigmoid(self.gate(h))
        return torch.sigmoid(self.c(h))


class Shared(T.Module):
    """One activation module for two places, one linear layer called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.act, self.out = (
            T.Linear(6, 8),
            T.Linear(8, 8),
            T.ReLU(),
            T.Linear(8, 3),
        )

    def forward(self, x):
        h = self.act(self.first(x))
        for _ in range(2):
            h = self.act(self.again(h))
        return self.out(h)


class Drawing(T.Module):
    """Functional dropout after the activation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = T.Linear(6, 8), T.Linear(8, 3)

    def forward(self, x):
        return self.b(F.dropout(F.relu(self.a(x)), 0.3, self.training))


def two_heads():
    class TwoHeads(T.Module):
        def __init__(self):
            super().__init__()
            self.body, self.a, self.b = T.Linear(6, 8), T.Linear(8, 3), T.Linear(8, 2)

        def forward(self, x):
            h = F.relu(self.body(x))
            return {"first": self.a(h), "more": {"second": self.b(h)}}

    return TwoHeads()


def rates(model):
    """The rates of all layers, by name."""
    return {n: getattr(m, rate_of(m)) for n, m in model.named_modules() if rate_of(m) is not None}


def state(model):
    """Everything that undo has to restore."""
    return (
        [(n, id(m), type(m), m.training) for n, m in model.named_modules()],
        [(n, id(p)) for n, p in model.named_parameters()],
        list(model.state_dict()),
        [
            (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()))
            for m in model.modules()
        ],
        [(m._forward_hooks_with_kwargs, m._forward_pre_hooks_with_kwargs) for m in model.modules()],
        [m.__dict__.get("forward") for m in model.modules()],
        rates(model),
    )
