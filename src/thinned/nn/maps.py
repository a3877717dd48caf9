"""Layers of :mod:`thinned.functional.maps`."""

from __future__ import annotations

from torch import Tensor

from .. import functional
from .._errors import InputError, probability, real, whole
from ..algebra.schedule import Schedule
from .method import FunctionLayer


class Disout(FunctionLayer):
    """Tang et al. 2020: :func:`thinned.functional.disout`."""

    def __init__(
        self,
        p: float | Schedule = 0.1,
        block_size: int | tuple[int, ...] = 6,
        alpha: float = 1.0,
        scale: float | Tensor = 0.01,
    ) -> None:
        scale = scale.detach() if isinstance(scale, Tensor) else scale
        super().__init__(
            functional.disout, p=p, block_size=block_size, alpha=real(alpha, "alpha"), scale=scale
        )


class Cutout(FunctionLayer):
    """DeVries and Taylor 2017: :func:`thinned.functional.cutout`. It has no rate: ``size`` is its
    strength.
    """

    def __init__(self, size: int = 16, holes: int = 1) -> None:
        super().__init__(
            functional.cutout, None, size=whole(size, "size", 1), holes=whole(holes, "holes", 1)
        )


class MaxPoolDropout1d(FunctionLayer):
    """Wu and Gu 2015 on [b, c, l]: :func:`thinned.functional.max_pool_dropout` in the place of
    ``torch.nn.MaxPool1d``.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] | None = None,
        p: float | Schedule = 0.5,
    ) -> None:
        windows = _windows(1, kernel_size)
        super().__init__(functional.max_pool_dropout, p=p, kernel_size=windows, stride=stride)


class MaxPoolDropout2d(FunctionLayer):
    """Wu and Gu 2015 on [b, c, h, w]: :func:`thinned.functional.max_pool_dropout` in the place of
    ``torch.nn.MaxPool2d``.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        p: float | Schedule = 0.5,
    ) -> None:
        windows = _windows(2, kernel_size)
        super().__init__(functional.max_pool_dropout, p=p, kernel_size=windows, stride=stride)


class MaxPoolDropout3d(FunctionLayer):
    """Wu and Gu 2015 on [b, c, d, h, w]: :func:`thinned.functional.max_pool_dropout` in the place
    of ``torch.nn.MaxPool3d``.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] | None = None,
        p: float | Schedule = 0.5,
    ) -> None:
        windows = _windows(3, kernel_size)
        super().__init__(functional.max_pool_dropout, p=p, kernel_size=windows, stride=stride)


class WeightedChannelDropout(FunctionLayer):
    """Hou and Wang 2019: :func:`thinned.functional.weighted_channel_dropout`."""

    def __init__(self, p: float | Schedule = 0.5, extra: float = 0.0) -> None:
        extra = probability(extra, "the extra rate", below_one=True)
        super().__init__(functional.weighted_channel_dropout, p=p, extra=extra)


def _windows(dims: int, kernel_size: int | tuple[int, ...]) -> tuple[int, ...]:
    """A number for each axis, so that a map of another rank is refused."""
    windows = (kernel_size,) * dims if isinstance(kernel_size, int) else tuple(kernel_size)
    if len(windows) != dims:
        raise InputError(f"kernel_size has to be a number or {dims} of them, but got {kernel_size}")
    return windows
