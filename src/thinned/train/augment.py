"""Augmentation with draws that belong to the example and the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..algebra.key import Key, stream_of
from ..engines.torch.philox import words
from ..engines.torch.reference import normal, uniform
from .recipe import Augment

_NOISE, _MOVE = stream_of("augment.noise"), stream_of("augment.move")


def augment(
    x: Tensor,
    each: list[Augment],
    image: tuple[int, int, int] | None,
    seed: int,
    step: int,
    ids: Tensor,
) -> Tensor:
    """``x`` [b, features] as each of m members sees it: [m, b, features].

    Members share the draws and differ in strength, so that they can be compared: common random
    numbers.
    """
    strength = torch.tensor([[a.noise, a.shift, a.rotate] for a in each])  # [m, 3]
    b, features = x.shape
    out = x.expand(len(each), b, features)
    if image and any(a.moves for a in each):
        draw = uniform(
            words(Key(seed, _MOVE, step=step, samples=ids), b, 3)
        ).float()  # [b, 3] in (-1, 1)
        theta = _moves(
            strength[:, 1, None] * draw[:, 0],
            strength[:, 1, None] * draw[:, 1],
            strength[:, 2, None] * draw[:, 2],
            image,
        )
        pictures = x.view(1, b, *image).expand(len(each), b, *image).reshape(-1, *image)
        grid = F.affine_grid(theta.view(-1, 2, 3), list(pictures.shape), align_corners=False)
        out = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False).view(
            len(each), b, features
        )
    if any(a.noise for a in each):
        even = features + features % 2
        eps = normal(words(Key(seed, _NOISE, step=step, samples=ids), b, even))[:, :features].to(
            x.dtype
        )
        out = out + strength[:, 0, None, None] * eps
    return out


def _moves(dx: Tensor, dy: Tensor, degrees: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Rotations about the centre and shifts in pixels, as the affine maps of ``grid_sample``: [m,
    b, 2, 3].
    """
    _, height, width = image
    angle = degrees * (math.pi / 180)
    sin, cos, ratio = angle.sin(), angle.cos(), height / width
    top = torch.stack((cos, -sin * ratio, 2 * dx / width), -1)
    bottom = torch.stack((sin / ratio, cos, 2 * dy / height), -1)
    return torch.stack((top, bottom), -2)
