"""Data augmentation: its draws are a function of the seed, the step and the sample id."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..algebra.key import Key, stream_of
from ..engines.torch.philox import words
from ..engines.torch.reference import normal, uniform
from .recipe import Augment

_NOISE_STREAM, _MOVE_STREAM = stream_of("augment.noise"), stream_of("augment.move")


def augment(
    x: Tensor,
    settings: Sequence[Augment],
    image: tuple[int, int, int] | None,
    seed: int,
    step: int,
    ids: Tensor,
) -> Tensor:
    """The inputs ``x`` [b, features], augmented for each of m networks: [m, b, features].

    The networks share the draws and differ only in the strength that their ``settings`` give, so
    that differences between them are not differences of the draws (common random numbers).
    """
    strength = torch.tensor([[a.noise, a.shift, a.rotate] for a in settings])  # [m, 3]
    b, features = x.shape
    out = x.expand(len(settings), b, features)
    if image and any(a.moves_images for a in settings):
        draw = uniform(
            words(Key(seed, _MOVE_STREAM, step=step, samples=ids), b, 3)
        ).float()  # [b, 3] in (-1, 1)
        theta = _affine_maps(
            strength[:, 1, None] * draw[:, 0],
            strength[:, 1, None] * draw[:, 1],
            strength[:, 2, None] * draw[:, 2],
            image,
        )
        images = x.view(1, b, *image).expand(len(settings), b, *image).reshape(-1, *image)
        grid = F.affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
        out = F.grid_sample(images, grid, padding_mode="border", align_corners=False).view(
            len(settings), b, features
        )
    if any(a.noise for a in settings):
        even = features + features % 2
        eps = normal(words(Key(seed, _NOISE_STREAM, step=step, samples=ids), b, even))[
            :, :features
        ].to(x.dtype)
        out = out + strength[:, 0, None, None] * eps
    return out


def _affine_maps(dx: Tensor, dy: Tensor, degrees: Tensor, image: tuple[int, int, int]) -> Tensor:
    """Affine maps of ``grid_sample`` [m, b, 2, 3]: shifts in pixels, rotations about the center."""
    _, height, width = image
    angle = degrees * (math.pi / 180)
    sin, cos, ratio = angle.sin(), angle.cos(), height / width
    top = torch.stack((cos, -sin * ratio, 2 * dx / width), -1)
    bottom = torch.stack((sin / ratio, cos, 2 * dy / height), -1)
    return torch.stack((top, bottom), -2)
