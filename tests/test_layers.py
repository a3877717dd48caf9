"""The layers that are no points, each through the whole contract of layers; and the layers of points."""

from __future__ import annotations

import pytest
import torch

from thinned import nn
from thinned.testing import LAYER_CHECKS, LayerCase


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


X = tensor(6, 12)  # [examples, features]
MAPS = tensor(5, 4, 8, 8)
TOKENS = tensor(5, 9, 12)  # [examples, tokens, features]
IDS = torch.arange(45).reshape(5, 9) % 11

LAYERS = {
    # activations
    "dropout": LayerCase(lambda: nn.Dropout(0.5), (X,)),
    # end of activations
    # maps
    "spatial": LayerCase(lambda: nn.Dropout2d(0.5), (MAPS,)),
    # end of maps
    # weights
    "dropconnect": LayerCase(lambda: nn.DropWeight(torch.nn.Linear(12, 7)), (X,)),
    # end of weights
    # learned
    # end of learned
    # branches
    "drop-path": LayerCase(lambda: nn.Dropout("drop-path", p=0.5), (X,)),
    # end of branches
    # sequences
    "locked": LayerCase(lambda: nn.Dropout("locked", p=0.5), (TOKENS,)),
    "embedding": LayerCase(lambda: nn.EmbeddingDropout(torch.nn.Embedding(12, 4, padding_idx=11), 0.5), (IDS,), examples=None),
    "word": LayerCase(lambda: nn.WordDropout(0.5, unknown_id=12), (IDS,), differentiable=False),
    # end of sequences
    # attention and tokens
    # end of attention and tokens
    # graphs and agents
    # end of graphs and agents
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("check", LAYER_CHECKS, ids=lambda c: c.__name__)
def test_contract(check, name):
    check(LAYERS[name])
