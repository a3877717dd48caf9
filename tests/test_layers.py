"""The layers that are no points, each through the whole contract of layers; and the layers of points."""

from __future__ import annotations

import pytest
import torch

from thinned import nn, presets
from thinned.testing import LAYER_CHECKS, LayerCase


def tensor(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


X = tensor(6, 12)  # [examples, features]
MAPS = tensor(5, 4, 8, 8)
TOKENS = tensor(5, 9, 12)  # [examples, tokens, features]
IDS = torch.arange(20).reshape(5, 4)


def moved(layer: torch.nn.Module) -> torch.nn.Module:
    """The layer after its parameters went away from where they were."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5).add_(0.1)
    return layer


def noisy(layer: nn.SparseVariationalDropout) -> torch.nn.Module:
    """With weights of every rate, so that some are left out."""
    torch.nn.init.uniform_(layer.log_variance, -8.0, 2.0)
    return layer


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
    "dropconnect-moments": LayerCase(lambda: nn.DropWeight(torch.nn.Linear(12, 7), sampling="moments"), (X,)),
    "dropconnect-shared": LayerCase(
        lambda: nn.DropWeight(torch.nn.Linear(12, 7), presets.dropconnect(per="batch")), (X,), None
    ),
    "dropconnect-conv": LayerCase(lambda: nn.DropWeight(torch.nn.Conv2d(4, 3, 3)), (MAPS,), None),
    "dropconnect-transposed": LayerCase(lambda: nn.DropWeight(torch.nn.ConvTranspose2d(4, 3, 3)), (MAPS,), None),
    "dropconnect-attention": LayerCase(
        lambda: nn.DropWeight(torch.nn.MultiheadAttention(12, 3, batch_first=True)), (TOKENS,) * 3, None
    ),
    "dropconnect-lstm": LayerCase(
        lambda: nn.DropWeight(torch.nn.LSTM(12, 7, 2, batch_first=True)), (TOKENS,), None, compiles=False
    ),
    "dropconnect-embedding": LayerCase(lambda: nn.DropWeight(torch.nn.Embedding(20, 6)), (IDS,), None),
    "mixout": LayerCase(lambda: moved(nn.Mixout(torch.nn.Linear(12, 7), 0.6)), (X,), None),
    "mixout-unit": LayerCase(lambda: moved(nn.Mixout(torch.nn.Conv2d(4, 3, 3), 0.6, per="unit")), (MAPS,), None),
    "shakeout": LayerCase(lambda: nn.Shakeout(torch.nn.Linear(12, 7), 0.4, 0.3), (X,)),
    "targeted": LayerCase(lambda: nn.Targeted(torch.nn.Linear(12, 7), 0.6, 0.5), (X,), None),
    "targeted-unit": LayerCase(lambda: nn.Targeted(torch.nn.Conv2d(4, 8, 3), 0.6, 0.5, per="unit"), (MAPS,), None),
    "lora": LayerCase(lambda: moved(nn.LoraDropout(torch.nn.Linear(12, 7), 3, 6.0, 0.4)), (X,)),
    # end of weights
    # learned
    "concrete": LayerCase(lambda: nn.ConcreteDropout(12, 0.3), (X,), rated=False),
    "concrete-maps": LayerCase(lambda: nn.ConcreteDropout(4, 0.3, 2 / 3, per="channel", unbiased=True), (MAPS,), rated=False),
    "variational": LayerCase(lambda: nn.VariationalDropout(12), (X,), rated=False),
    "variational-layer": LayerCase(lambda: nn.VariationalDropout(12, 0.4, per="layer"), (TOKENS,), rated=False),
    "sparse-variational": LayerCase(lambda: noisy(nn.SparseVariationalDropout(torch.nn.Linear(12, 7))), (X,), rated=False),
    "sparse-variational-maps": LayerCase(
        lambda: noisy(nn.SparseVariationalDropout(torch.nn.Conv2d(4, 3, 3, bias=False))), (MAPS,), rated=False
    ),
    "information": LayerCase(
        lambda: nn.InformationDropout(torch.nn.Sequential(torch.nn.Linear(12, 7), torch.nn.ReLU()), torch.nn.Linear(12, 7)),
        (X,),
        rated=False,
    ),
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
