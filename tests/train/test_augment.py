"""Data augmentation."""

from __future__ import annotations

import torch

from thinned.train import (
    Augment,
)
from thinned.train.augment import augment


def test_augment_zero_is_identity_and_draws_are_keyed_by_rows():
    x, ids = torch.randn(6, 64), torch.arange(6)
    same = augment(x, [Augment(), Augment(noise=0.5)], (1, 8, 8), 0, 3, ids)
    assert torch.equal(same[0], x)
    assert not torch.equal(same[1], x)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    moved = [Augment(shift=2, rotate=20, noise=0.1)]
    torch.testing.assert_close(
        augment(x[order], moved, (1, 8, 8), 0, 3, ids[order]),
        augment(x, moved, (1, 8, 8), 0, 3, ids)[:, order],
    )
    assert not torch.equal(
        augment(x, moved, (1, 8, 8), 0, 4, ids), augment(x, moved, (1, 8, 8), 0, 3, ids)
    )


def test_augment_moves_pixels_by_the_draw(monkeypatch):
    """With the draw fixed at 1: a shift of 2 pixels moves the image by 2, a rotation of 90 degrees
    rotates it.
    """
    picture = torch.arange(30.0).view(1, 30)
    shape = (1, 5, 6)
    image = picture.view(5, 6)
    monkeypatch.setattr("thinned.train.augment.uniform", lambda w: torch.tensor([[1.0, 0.0, 0.0]]))
    out = augment(picture, [Augment(shift=2)], shape, 0, 0, torch.arange(1)).view(5, 6)
    torch.testing.assert_close(out[:, :4], image[:, 2:])
    monkeypatch.setattr("thinned.train.augment.uniform", lambda w: torch.tensor([[0.0, 1.0, 0.0]]))
    out = augment(picture, [Augment(shift=1)], shape, 0, 0, torch.arange(1)).view(5, 6)
    torch.testing.assert_close(out[:4], image[1:])
    square = torch.arange(25.0).view(1, 25)
    monkeypatch.setattr("thinned.train.augment.uniform", lambda w: torch.tensor([[0.0, 0.0, 1.0]]))
    out = augment(square, [Augment(rotate=90)], (1, 5, 5), 0, 0, torch.arange(1)).view(5, 5)
    turned = [torch.rot90(square.view(5, 5), k) for k in (1, -1)]
    assert any(torch.allclose(out, t, atol=1e-4) for t in turned)
