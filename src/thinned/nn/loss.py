"""Losses that compare several thinned networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError


def _same(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise InputError(
            f"two passes have to give one shape, but got {list(first.shape)} and {list(second.shape)}"
        )


def r_drop(first: Tensor, second: Tensor, target: Tensor, alpha: float = 1.0) -> Tensor:
    """R-Drop: (CE(first) + CE(second)) / 2 + alpha / 2 * (KL(first || second) + KL(second ||
    first)) / 2.

    ``first`` and ``second``: logits [n, classes] of two passes with different masks; ``target``:
    classes [n]. This is half the paper's loss, so that it is one pass's cross-entropy where the two
    agree; ``alpha`` is the paper's (1 to 5 there); written as CE + alpha times the mean of the two
    divergences, without the factor 1/2, it would be half of this one. Every term is a mean over
    examples. The authors' code sums the divergence over the batch beside a mean cross-entropy,
    which makes their alpha depend on the batch.

    Liang et al. 2021, "R-Drop: regularized dropout for neural networks", equations 2 to 4.
    """
    _same(first, second)
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    apart = torch.where(
        p == q, 0.0, p - q
    )  # a class that both passes rule out, at -inf, is no difference
    divergence = ((p.exp() - q.exp()) * apart).sum(-1).mean()
    return 0.5 * (F.nll_loss(p, target) + F.nll_loss(q, target)) + 0.25 * alpha * divergence


def fraternal(
    first: Tensor, second: Tensor, loss: Callable[[Tensor], Tensor], kappa: float = 0.1
) -> Tensor:
    """Fraternal dropout: (loss(first) + loss(second)) / 2 + kappa * mean squared difference of the
    two outputs.

    ``first`` and ``second``: outputs of two passes with different masks, of one shape.

    Zolna et al. 2018, "Fraternal dropout", equation 2.
    """
    _same(first, second)
    return 0.5 * (loss(first) + loss(second)) + kappa * (first - second).square().mean()


def multi_sample(
    features: Tensor, drops: Sequence[Callable[[Tensor], Tensor]], head: Callable[[Tensor], Tensor]
) -> Tensor:
    """Multi-sample dropout: ``head`` on each of ``drops`` of the same ``features``, stacked:
    [samples, n, ...].

    Average the loss over the first axis while training. In evaluation all samples are equal; take
    one. The features are computed once, which is the point.

    Inoue 2019, "Multi-sample dropout for accelerated training and better generalization".
    """
    if not drops:
        raise InputError("multi-sample dropout needs at least one dropout, but got none")
    return torch.stack([head(drop(features)) for drop in drops])
