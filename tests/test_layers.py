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
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0, 4, 5, 5, 0], [1, 0, 2, 1, 3, 2, 0, 3, 5, 4, 0, 5]])  # both directions
QKV = (tensor(5, 4, 6, 8), tensor(5, 4, 7, 8).flip(0), tensor(5, 4, 7, 3))  # [examples, heads, tokens, features]
MASK = tensor(5, 1, 6, 7) > -0.5  # [examples, 1, queries, keys], True where a key takes part


class Softmaxed(torch.nn.Module):
    """Scores through a layer to attention, since -inf has no distance and no slope."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return self.layer(scores).softmax(-1)


LAYERS = {
    # activations
    "dropout": LayerCase(lambda: nn.Dropout(0.5), (X,)),
    # end of activations
    # maps
    "spatial": LayerCase(lambda: nn.Dropout2d(0.5), (MAPS,)),
    "disout": LayerCase(lambda: nn.Disout(0.3, 3), (MAPS,), exact_gradient=False),  # the noise's size is held constant
    "disout-even": LayerCase(lambda: nn.Disout(0.3, (4, 2), 2.0, 0.1), (MAPS,), exact_gradient=False),
    "cutout": LayerCase(lambda: nn.Cutout(4, holes=2), (MAPS,), rated=False),
    "max-pool": LayerCase(lambda: nn.MaxPoolDropout2d(2), (MAPS.abs() + 0.1,)),
    "max-pool-1d": LayerCase(lambda: nn.MaxPoolDropout1d(3, 2), (TOKENS.abs() + 0.1,)),
    "max-pool-3d": LayerCase(lambda: nn.MaxPoolDropout3d(2), (MAPS.abs().reshape(5, 4, 4, 4, 4) + 0.1,)),
    "weighted-channel": LayerCase(  # the scale is held constant
        lambda: nn.WeightedChannelDropout(0.5, extra=0.2), (MAPS.abs() + 0.1,), exact_gradient=False
    ),
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
    # end of sequences
    # attention and tokens
    "token": LayerCase(lambda: nn.Dropout("token", p=0.5), (TOKENS,)),
    "patch": LayerCase(lambda: nn.PatchDropout(0.5), (TOKENS,)),
    "patch-indices": LayerCase(lambda: nn.PatchDropout(0.3, prefix=0, indices=True), (TOKENS,)),
    "hidden-cut": LayerCase(lambda: nn.HiddenCut(0.3), (TOKENS,)),
    "attention": LayerCase(lambda: nn.DropAttention(0.3), QKV),
    "attention-causal": LayerCase(lambda: nn.DropAttention(0.3), (*QKV, None, True)),
    "attention-masked": LayerCase(lambda: nn.DropAttention(0.3, scale=0.2), (*QKV, MASK)),
    "attention-keys": LayerCase(lambda: nn.DropAttention(0.6, "keys"), (*QKV, MASK)),
    "attention-heads": LayerCase(lambda: nn.DropAttention(0.5, "heads"), QKV),
    "drop-key": LayerCase(lambda: Softmaxed(nn.DropKey(0.5)), (tensor(5, 4, 6, 7),)),
    "drop-head": LayerCase(lambda: nn.DropHead(0.5), (tensor(5, 4, 6, 7),)),
    # end of attention and tokens
    # graphs and agents
    "drop-edge": LayerCase(lambda: nn.DropEdge(0.5), (EDGES, X.flatten()[:12]), examples=None, compiles=False),
    "drop-edge-pairs": LayerCase(
        lambda: nn.DropEdge(0.5, exact=True, undirected=True), (EDGES, X.flatten()[:12]), examples=None, compiles=False
    ),
    "drop-node": LayerCase(lambda: nn.DropNode(0.5), (X,), examples=None),
    "drop-message": LayerCase(lambda: nn.DropMessage(0.5), (X,), examples=None),
    # end of graphs and agents
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("check", LAYER_CHECKS, ids=lambda c: c.__name__)
def test_contract(check, name):
    check(LAYERS[name])
