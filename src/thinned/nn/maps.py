"""Layers of :mod:`thinned.functional.maps`."""

from __future__ import annotations

from torch import Tensor

from .. import functional
from .._errors import InputError, probability, real, whole
from ..algebra.schedule import Schedule
from .method import MethodDropout


def Disout(
    p: float | Schedule = 0.1,
    block: int | tuple[int, ...] = 6,
    alpha: float = 1.0,
    scale: float | Tensor = 0.01,
) -> MethodDropout:
    """Tang et al. 2020: :func:`thinned.functional.disout`."""
    scale = scale.detach() if isinstance(scale, Tensor) else scale
    return MethodDropout(
        functional.disout, p=p, block=block, alpha=real(alpha, "alpha"), scale=scale
    )


def Cutout(size: int = 16, holes: int = 1) -> MethodDropout:
    """DeVries and Taylor 2017: :func:`thinned.functional.cutout`. It has no rate: ``size`` is its
    strength.
    """
    return MethodDropout(
        functional.cutout, None, size=whole(size, "size", 1), holes=whole(holes, "holes", 1)
    )


def MaxPoolDropout1d(
    kernel_size: int | tuple[int], stride: int | tuple[int] | None = None, p: float | Schedule = 0.5
) -> MethodDropout:
    """Wu and Gu 2015 on [b, c, l]: :func:`thinned.functional.max_pool_dropout` in the place of
    ``torch.nn.MaxPool1d``.
    """
    return _pool(1, kernel_size, stride, p)


def MaxPoolDropout2d(
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    p: float | Schedule = 0.5,
) -> MethodDropout:
    """Wu and Gu 2015 on [b, c, h, w]: :func:`thinned.functional.max_pool_dropout` in the place of
    ``torch.nn.MaxPool2d``.
    """
    return _pool(2, kernel_size, stride, p)


def MaxPoolDropout3d(
    kernel_size: int | tuple[int, int, int],
    stride: int | tuple[int, int, int] | None = None,
    p: float | Schedule = 0.5,
) -> MethodDropout:
    """Wu and Gu 2015 on [b, c, d, h, w]: :func:`thinned.functional.max_pool_dropout` in the place
    of ``torch.nn.MaxPool3d``.
    """
    return _pool(3, kernel_size, stride, p)


def WeightedChannelDropout(p: float | Schedule = 0.5, extra: float = 0.0) -> MethodDropout:
    """Hou and Wang 2019: :func:`thinned.functional.weighted_channel_dropout`."""
    extra = probability(extra, "the extra rate", below_one=True)
    return MethodDropout(functional.weighted_channel_dropout, p=p, extra=extra)


def _pool(
    dims: int,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None,
    p: float | Schedule,
) -> MethodDropout:
    """With a number for each axis, so that a map of another rank is refused."""
    windows = (kernel_size,) * dims if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(windows) != dims:
        raise InputError(f"kernel_size has to be a number or {dims} of them, but got {kernel_size}")
    return MethodDropout(functional.max_pool_dropout, p=p, kernel_size=windows, stride=stride)
