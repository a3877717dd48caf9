"""SpatialDropout: whole planes, and dropout on maps of one element."""

from __future__ import annotations

import torch

from thinned import functional as F
from thinned import presets
from thinned.algebra import (
    Key,
)


def test_spatial_is_dropout_on_maps_of_one_element():
    x, key = torch.randn(5, 7, 1, 1), Key(3)
    assert torch.equal(
        F.drop(x, presets.spatial_dropout(0.4), key=key), F.drop(x, presets.dropout(0.4), key=key)
    )


def test_spatial_planes_are_whole():
    y = F.dropout2d(torch.ones(20, 30, 5, 4), 0.25)
    planes = y.flatten(2)
    assert ((planes == 0).all(-1) | (planes - 1 / 0.75).abs().lt(1e-6).all(-1)).all()
    assert 0 < (planes == 0).float().mean() < 1
