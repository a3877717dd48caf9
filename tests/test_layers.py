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
STEPS = tensor(4, 5, 6)  # [steps, examples, features]


def recurrent(kind: type[torch.nn.RNNBase] = torch.nn.LSTM, layers: int = 1, both: bool = False, **rates) -> LayerCase:
    """A recurrent network whose states (or what ``rates`` says) fall, time first."""
    build = lambda: nn.DropState(kind(6, 3, num_layers=layers, bidirectional=both), **rates)  # noqa: E731
    return LayerCase(build, (STEPS,), examples=1)


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
    "variational-rnn": recurrent(states=0.5),
    "variational-gru-untied": recurrent(torch.nn.GRU, layers=2, states=0.5, tied=False),
    "locked-rnn": recurrent(layers=2, both=True, inputs=0.4, between=0.5, outputs=0.3),
    "weight-drop": LayerCase(lambda: nn.DropState(torch.nn.LSTM(6, 3), weights=0.5), (STEPS,), examples=None),
    "recurrent": recurrent(states=0.5, method="recurrent"),
    "recurrent-gru": recurrent(torch.nn.GRU, both=True, states=0.5, method="recurrent", per="sequence"),
    "rnndrop": recurrent(states=0.5, method="rnndrop"),
    "zoneout": recurrent(layers=2, both=True, states=0.3, cells=0.5, method="zoneout"),
    "zoneout-gru": recurrent(torch.nn.GRU, states=0.5, method="zoneout"),
    "zoneout-rnn": recurrent(torch.nn.RNN, states=0.5, method="zoneout"),
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
