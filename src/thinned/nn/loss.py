"""Losses that compare several forward passes with different masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError


def _check_same_shape(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise InputError(
            f"two passes have to give one shape, but got {list(first.shape)} and "
            f"{list(second.shape)}"
        )


def r_drop(first: Tensor, second: Tensor, target: Tensor, alpha: float = 1.0) -> Tensor:
    """R-Drop: cross-entropy plus a penalty on the divergence of two passes with different masks.

    (CE(first) + CE(second)) / 2 + alpha / 2 (KL(first || second) + KL(second || first)) / 2. This
    is half the loss of the paper, so that it is the cross-entropy of one pass where the two agree.
    Every term is a mean over examples. The code of the authors sums the divergence over the batch
    and averages the cross-entropy, which makes their alpha depend on the batch size.

    Args:
        first: The logits of the first pass, [n, classes].
        second: The logits of the second pass, [n, classes].
        target: The classes, int64 [n].
        alpha: The weight of the divergence, that of the paper (1 to 5 there). An implementation
            that writes CE + alpha times the mean of the two divergences needs half of this value.

    Returns:
        The loss, a tensor without axes.

    Raises:
        InputError: Where the two passes differ in shape.

    Example:
        >>> import thinned.nn as tnn
        >>> import torch
        >>> logits = torch.zeros(3, 2)
        >>> tnn.r_drop(logits, logits, torch.tensor([0, 1, 0]))
        tensor(0.6931)

    Reference:
        Liang et al. 2021, "R-Drop: regularized dropout for neural networks", equations 2 to 4.
    """
    _check_same_shape(first, second)
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    # a class that both passes exclude has -inf in both, which is no difference
    difference = torch.where(p == q, 0.0, p - q)
    divergence = ((p.exp() - q.exp()) * difference).sum(-1).mean()
    return 0.5 * (F.nll_loss(p, target) + F.nll_loss(q, target)) + 0.25 * alpha * divergence


def fraternal(
    first: Tensor, second: Tensor, loss: Callable[[Tensor], Tensor], kappa: float = 0.1
) -> Tensor:
    """Fraternal dropout: the mean loss of two passes plus their mean squared difference.

    (loss(first) + loss(second)) / 2 + kappa mean((first - second)^2).

    Args:
        first: The output of the first pass.
        second: The output of the second pass, with another mask and of the same shape.
        loss: Returns the loss of an output, a tensor without axes.
        kappa: The weight of the difference.

    Returns:
        The loss, a tensor without axes.

    Raises:
        InputError: Where the two passes differ in shape.

    Example:
        >>> import thinned.nn as tnn
        >>> import torch
        >>> tnn.fraternal(torch.tensor([1.0]), torch.tensor([3.0]), torch.mean, kappa=0.1)
        tensor(2.4000)

    Reference:
        Zolna et al. 2018, "Fraternal dropout", equation 2.
    """
    _check_same_shape(first, second)
    return 0.5 * (loss(first) + loss(second)) + kappa * (first - second).square().mean()


def multi_sample(
    features: Tensor, drops: Sequence[Callable[[Tensor], Tensor]], head: Callable[[Tensor], Tensor]
) -> Tensor:
    """Multi-sample dropout: applies ``head`` to several dropout masks of the same features.

    Average the loss over the first axis while training. In evaluation all samples are equal; take
    one. It is cheap because the features are computed only once.

    Args:
        features: The features, [n, ...].
        drops: The dropout layers, at least one.
        head: Maps features to outputs, such as a Linear.

    Returns:
        The outputs, [samples, n, ...].

    Raises:
        InputError: Where ``drops`` is empty.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> drops = [tnn.Dropout(0.5) for _ in range(4)]
        >>> tnn.multi_sample(torch.ones(3, 8), drops, torch.nn.Linear(8, 2)).shape
        torch.Size([4, 3, 2])

    Reference:
        Inoue 2019, "Multi-sample dropout for accelerated training and better generalization".
    """
    if not drops:
        raise InputError("multi-sample dropout needs at least one dropout, but got none")
    return torch.stack([head(drop(features)) for drop in drops])
