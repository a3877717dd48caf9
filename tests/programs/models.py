"""Small programs of the kinds that people train, written as they write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(kw_only=True)
class Program:
    """A model, a batch and a loss.

    Args:
        build: Returns the model.
        batch: Returns the inputs of the model for a number of examples.
        axis: The axis of the examples in the inputs and the result; None where the examples of a
            batch are not independent, as the nodes of a graph.
        sites: The number of sites that drop in training.
        layout: The layout that ``replace`` and ``expose`` need, or None.
    """

    build: Callable[[], nn.Module]
    batch: Callable[[int], tuple[Any, ...]]
    axis: int | None = 0
    sites: int
    layout: str | None = None


class CausalAttention(nn.Module):
    def __init__(self, size: int, heads: int, rate: float) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.drop, self.heads, self.rate = nn.Dropout(rate), heads, rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = (
            y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).split(d, dim=2)
        )
        y = F.scaled_dot_product_attention(
            q, k, v, dropout_p=self.rate if self.training else 0, is_causal=True
        )
        return self.drop(self.out(y.transpose(1, 2).reshape(b, t, d)))


class CausalModel(nn.Module):
    """A causal language model."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.drop, self.attend = nn.Dropout(0.3), CausalAttention(8, 2, 0.3)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.Dropout(0.3))
        self.head = nn.Linear(8, 11, bias=False)
        self.tokens.weight = self.head.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.tokens(words) + self.places(torch.arange(words.shape[1])))
        x = x + self.attend(self.norms[0](x))
        x = x + self.feed(self.norms[1](x))
        return self.head(x)


class WordModel(nn.Module):
    """A recurrent language model, with time first."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.encoder = nn.Dropout(0.3), nn.Embedding(11, 8)
        self.rnn, self.decoder = nn.LSTM(8, 8, 2, dropout=0.3), nn.Linear(8, 11)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(self.drop(self.encoder(words)))
        return self.decoder(self.drop(y))


class GraphConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        return torch.sparse.mm(adjacency, self.linear(x))


class GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(7, 8), GraphConvolution(8, 3)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        x = F.dropout(x, p=0.5, training=self.training)
        x = F.relu(self.first(x, adjacency))
        x = F.dropout(x, p=0.5, training=self.training)
        return self.second(x, adjacency)


class GAT(nn.Module):
    """Graph attention: the attention weights are dropped too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.out = nn.Linear(7, 8), nn.Linear(8, 3)
        self.source, self.target = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        x = self.linear(F.dropout(x, 0.4, training=self.training))
        scores = F.leaky_relu(self.source(x) + self.target(x).T, 0.2)
        weights = scores.masked_fill(adjacency.to_dense() == 0, -math.inf).softmax(-1)
        weights = F.dropout(weights, 0.4, training=self.training)
        return self.out(F.elu(weights @ x))


class DropPath(nn.Module):
    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)


class VisionModel(nn.Module):
    """A vision transformer with torch's attention and drop path."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.norm, self.path = nn.LayerNorm(8), DropPath(0.3)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.path(self.attention(y, y, y, need_weights=False)[0])
        return self.head(self.block(x).mean(1))


class ConvModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout2d(0.25)
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv2(F.relu(self.conv1(images))))), 2)
        x = F.relu(self.fc1(self.drop(x).flatten(1)))
        return self.fc2(F.dropout(x, training=self.training))


class Agent(nn.Module):
    """An actor and a critic on one body with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2))
        self.actor, self.critic = nn.Linear(16, 2), nn.Linear(16, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        x = self.body(states)
        return torch.cat([self.actor(x), self.critic(x)], -1)


def images(n: int) -> tuple[torch.Tensor]:
    return (torch.randn(n, 1, 8, 8),)


def graph(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    adjacency = ((torch.rand(n, n) < 0.4) | torch.eye(n, dtype=torch.bool)).float()
    return torch.randn(n, 7), (adjacency / adjacency.sum(1, keepdim=True)).to_sparse()


PROGRAMS = {
    "causal language model": Program(
        build=CausalModel, batch=lambda n: (torch.randint(0, 11, (n, 6)),), sites=4
    ),
    "recurrent language model": Program(
        build=WordModel,
        batch=lambda n: (torch.randint(0, 11, (4, n)),),
        axis=1,
        sites=3,  # the layer is called at two places
        layout="t b *",
    ),
    "graph convolutions": Program(build=GCN, batch=graph, axis=None, sites=2),
    "graph attention": Program(build=GAT, batch=graph, axis=None, sites=2),
    "vision transformer": Program(build=VisionModel, batch=images, sites=6),
    "convolutional network": Program(build=ConvModel, batch=images, sites=2),
    "agent": Program(build=Agent, batch=lambda n: (torch.randn(n, 4),), sites=1),
}
