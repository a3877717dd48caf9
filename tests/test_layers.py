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

LAYERS = {
    # activations
    "dropout": LayerCase(lambda: nn.Dropout(0.5), (X,)),
    "standout": LayerCase(lambda: nn.StandoutDropout(torch.nn.Linear(12, 7)), (X,), rated=False),
    "jumpout": LayerCase(lambda: nn.Jumpout(0.3), (X.relu() + 0.01,)),
    "fast": LayerCase(lambda: nn.FastDropout(torch.nn.Linear(12, 7), 0.5, "relu"), (X,), draws=False),
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
    "layer": LayerCase(lambda: nn.LayerDrop([torch.nn.Linear(12, 12) for _ in range(4)], 0.5), (X,), examples=None),
    "shake-drop": LayerCase(lambda: nn.ShakeDrop(0.95), (X,), exact_gradient=False),
    "shake-shake": LayerCase(nn.ShakeShake, (X, X.flip(0)), exact_gradient=False, rated=False),
    "shake-keep": LayerCase(lambda: nn.ShakeShake("keep"), (X, X.flip(0)), rated=False),
    "swapout": LayerCase(nn.Swapout, (X, X.flip(0))),
    # end of branches
    # sequences
    "locked": LayerCase(lambda: nn.Dropout("locked", p=0.5), (TOKENS,)),
    # end of sequences
    # attention and tokens
    # end of attention and tokens
    # graphs and agents
    "droq": LayerCase(lambda: nn.droq(12, hidden=(8, 8), p=0.5), (X,)),
    # end of graphs and agents
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("check", LAYER_CHECKS, ids=lambda c: c.__name__)
def test_contract(check, name):
    check(LAYERS[name])
