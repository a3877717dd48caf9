"""Locked dropout: one mask over time."""

from __future__ import annotations

import torch

from thinned import functional as F
from thinned import nn, presets
from thinned.algebra import (
    Key,
)


def test_locked_dropout_is_one_mask_over_time():
    layer = nn.LockedDropout(p=0.5)
    y = layer(torch.ones(8, 20, 16))
    assert torch.equal(y, y[:, :1].expand(8, 20, 16))
    assert not torch.equal(y[0], y[1])
    one = torch.randn(8, 1, 16)
    flat = F.drop(one.squeeze(1), presets.dropout(0.5), key=Key(4))
    assert torch.equal(
        F.drop(one, presets.locked_dropout(0.5), key=Key(4)).squeeze(1), flat
    )  # one step: dropout itself
    first = nn.LockedDropout(p=0.5, layout="t b d")(torch.ones(20, 8, 16))
    assert torch.equal(first, first[:1].expand(20, 8, 16))
