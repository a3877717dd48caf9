"""Dropout layers on feature maps that are no affine noise: disout, cutout, pooling and channels."""

from __future__ import annotations

from torch import Tensor

from .. import functional
from .._errors import InputError, probability, real, whole
from ..algebra.schedule import Schedule
from .method import FunctionLayer


class Disout(FunctionLayer):
    """Disout: distorts blocks of feature maps by Gaussian noise instead of zeroing them.

    Input: [b, c, *map] with one to three map axes. Output: the same shape; the input itself in
    evaluation. While training y = (m x + (1 - m) alpha scale std(x) n) numel(m) / sum(m), with the
    mask m of :class:`DropBlock`, n ~ N(0, 1) for each element, and std(x) of the whole tensor. The
    backward pass treats the size of the noise as a constant.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        block_size: The edge of a block, in elements, for all map axes or one for each; at most the
            size of the map.
        alpha: The strength of the distortion, at least 0; 0 is DropBlock.
        scale: The size of the noise: a number, or a tensor that broadcasts to the input, such as
            [1, c, 1, 1] computed from the weights of the next layer, as in the code of the authors.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Disout(0.1, 5)
        Disout(p=0.1, block_size=5, alpha=1.0, scale=0.01)

    Reference:
        Tang, Wang, Xu and others 2020, "Beyond dropout: feature map distortion to regularize deep
        neural networks"; :func:`thinned.functional.disout`.
    """

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
    """Cutout: zeroes random squares of each example, in all its channels alike; nothing is scaled.

    Input: [b, c, *map], usually normalized images, so that 0 is their mean. Output: the same shape;
    the input itself in evaluation. It has no rate: ``size`` is its strength. The center of a square
    is uniform over the map, and squares are cut off at the border.

    Args:
        size: The edge of a square, in elements, at least 1; in the paper 16 for CIFAR-10, 8 for
            CIFAR-100 and 20 for SVHN.
        holes: The number of squares, at least 1.

    Raises:
        InputError: Where an argument is not a whole number of at least 1; in the forward pass where
            a square would hide the whole map.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Cutout(8)
        Cutout(size=8, holes=1)

    Reference:
        DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with
        cutout"; :func:`thinned.functional.cutout`.
    """

    def __init__(self, size: int = 16, holes: int = 1) -> None:
        super().__init__(
            functional.cutout, None, size=whole(size, "size", 1), holes=whole(holes, "holes", 1)
        )


class MaxPoolDropout1d(FunctionLayer):
    """Max-pooling dropout in place of ``torch.nn.MaxPool1d``: drops elements before pooling.

    Input: [b, c, l], at least 0, as after a ReLU. Output: [b, c, l'] as torch's pooling without
    padding. While training it is the maximum of what is kept in each window, not scaled. Evaluation
    is the mean of that: probabilistic weighted pooling.

    Args:
        kernel_size: The length of a window.
        stride: The step between windows; None is ``kernel_size``.
        p: The probability of dropping an element, in [0, 1], or a schedule of it; 0 is max pooling.

    Raises:
        InputError: Where an argument breaks a rule; in the forward pass where the input has another
            rank or negative elements.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> tnn.MaxPoolDropout1d(2)(torch.ones(3, 4, 8)).shape
        torch.Size([3, 4, 4])

    Reference:
        Wu and Gu 2015, "Max-pooling dropout for regularization of convolutional neural networks";
        :func:`thinned.functional.max_pool_dropout`.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] | None = None,
        p: float | Schedule = 0.5,
    ) -> None:
        super().__init__(
            functional.max_pool_dropout,
            p=p,
            kernel_size=_windows(1, kernel_size, "kernel_size"),
            stride=None if stride is None else _windows(1, stride, "stride"),
        )


class MaxPoolDropout2d(FunctionLayer):
    """Max-pooling dropout in place of ``torch.nn.MaxPool2d``: drops elements before pooling.

    Input: [b, c, h, w], at least 0, as after a ReLU. Output: [b, c, h', w'] as torch's pooling
    without padding. While training it is the maximum of what is kept in each window, not scaled.
    Evaluation is the mean of that: probabilistic weighted pooling.

    Args:
        kernel_size: The edge of a window, or (height, width).
        stride: The step between windows, or (vertical, horizontal); None is ``kernel_size``.
        p: The probability of dropping an element, in [0, 1], or a schedule of it; 0 is max pooling.

    Raises:
        InputError: Where an argument breaks a rule; in the forward pass where the input has another
            rank or negative elements.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> tnn.MaxPoolDropout2d(2)(torch.ones(3, 4, 8, 8)).shape
        torch.Size([3, 4, 4, 4])

    Reference:
        Wu and Gu 2015, "Max-pooling dropout for regularization of convolutional neural networks";
        :func:`thinned.functional.max_pool_dropout`.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        p: float | Schedule = 0.5,
    ) -> None:
        super().__init__(
            functional.max_pool_dropout,
            p=p,
            kernel_size=_windows(2, kernel_size, "kernel_size"),
            stride=None if stride is None else _windows(2, stride, "stride"),
        )


class MaxPoolDropout3d(FunctionLayer):
    """Max-pooling dropout in place of ``torch.nn.MaxPool3d``: drops elements before pooling.

    Input: [b, c, d, h, w], at least 0, as after a ReLU. Output: [b, c, d', h', w'] as torch's
    pooling without padding. While training it is the maximum of what is kept in each window, not
    scaled. Evaluation is the mean of that: probabilistic weighted pooling.

    Args:
        kernel_size: The edge of a window, or (depth, height, width).
        stride: The step between windows, or one for each axis; None is ``kernel_size``.
        p: The probability of dropping an element, in [0, 1], or a schedule of it; 0 is max pooling.

    Raises:
        InputError: Where an argument breaks a rule; in the forward pass where the input has another
            rank or negative elements.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> tnn.MaxPoolDropout3d(2)(torch.ones(3, 4, 8, 8, 8)).shape
        torch.Size([3, 4, 4, 4, 4])

    Reference:
        Wu and Gu 2015, "Max-pooling dropout for regularization of convolutional neural networks";
        :func:`thinned.functional.max_pool_dropout`.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] | None = None,
        p: float | Schedule = 0.5,
    ) -> None:
        super().__init__(
            functional.max_pool_dropout,
            p=p,
            kernel_size=_windows(3, kernel_size, "kernel_size"),
            stride=None if stride is None else _windows(3, stride, "stride"),
        )


class WeightedChannelDropout(FunctionLayer):
    """Weighted channel dropout: drops a fixed number of channels, weak ones with a higher chance.

    Input: [b, c, *map], after a ReLU. Output: the same shape; the input itself in evaluation. The
    score of a channel is its mean over the map. Of C channels C - round(p C) are kept, at least
    one, by weighted choice without replacement, and multiplied so that the sum of scores is kept.
    The backward pass treats the scale as a constant.

    Args:
        p: The part of the channels to drop, in [0, 1], or a schedule of it.
        extra: The probability of dropping a kept channel as well, in [0, 1), without scaling.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.WeightedChannelDropout(0.5)
        WeightedChannelDropout(p=0.5, extra=0.0)

    Reference:
        Hou and Wang 2019, "Weighted channel dropout for regularization of deep convolutional neural
        network"; :func:`thinned.functional.weighted_channel_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, extra: float = 0.0) -> None:
        extra = probability(extra, "the extra rate", below_one=True)
        super().__init__(functional.weighted_channel_dropout, p=p, extra=extra)


def _windows(dims: int, sides: int | tuple[int, ...], name: str) -> tuple[int, ...]:
    """One number for each axis, so that a map of another rank raises an error."""
    windows = sides if isinstance(sides, (tuple, list)) else (sides,) * dims
    if len(windows) != dims:
        raise InputError(f"{name} has to be one number or {dims} of them, but got {sides}")
    return tuple(whole(side, name, 1) for side in windows)
