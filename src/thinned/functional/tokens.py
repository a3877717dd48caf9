"""Dropout of tokens in sequences [b, t, ...]."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError, whole
from .core import KeyLike, Rate, check_rate, is_noop, random_subset, uniform
from .inputs import dense_inputs


@dense_inputs
def patch_dropout(
    x: Tensor,
    p: float = 0.5,
    prefix: int = 1,
    training: bool = True,
    indices: bool = False,
    *,
    key: KeyLike = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """PatchDropout: keeps a random subset of the patches of each example, in a shorter sequence.

    Of the T - prefix tokens after the first ``prefix``, int((1 - p) (T - prefix)) are kept in their
    order; every subset is equally likely, and each example has its own. Nothing is scaled. At p = 0
    and in evaluation the result is ``x``.

    Args:
        x: [b, T, ...], tokens with their positions already added.
        p: The rate of dropping, in [0, 1); a rate that keeps no patch is refused.
        prefix: The number of leading tokens that are always kept: 1 for a class token, 0 without
            one.
        training: Whether to draw; False computes the evaluation.
        indices: Whether to return the positions of the kept tokens as well.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        [b, kept, ...]; with ``indices`` also int64 [b, kept].

    Raises:
        InputError: Where ``x`` has fewer than two axes, ``prefix`` is no number below T, or ``p``
            would drop all patches.

    Example:
        >>> from thinned import Key
        >>> x = torch.arange(7.0).repeat(2, 1)
        >>> patch_dropout(x, 0.5, key=Key(seed=1))
        tensor([[0., 1., 2., 4.],
                [0., 3., 5., 6.]])

    Reference:
        Liu, Matsoukas, Strand, Azizpour, Smith 2023, "PatchDropout: economizing vision transformers
        using patch dropout".
    """
    if x.dim() < 2:
        raise InputError(f"patch_dropout needs tokens [b, t, ...], but got {list(x.shape)}")
    check_rate(p)
    prefix = whole(prefix, "prefix", 0)
    patches = x.shape[1] - prefix
    if patches < 1:
        raise InputError(f"prefix has to be below the {x.shape[1]} tokens, but got {prefix}")
    if is_noop(x, p, training):
        every = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        return (x, every) if indices else x
    count = int((1.0 - p) * patches + 1e-9)  # (1 - 0.9) * 10 rounds to 0.99...
    if count < 1:
        raise InputError(
            f"rate {p} would drop all {patches} patches; use a rate of at most "
            f"{1 - 1 / patches:.4g}"
        )
    kept = random_subset(x.shape[0], patches, count, key, x.device) + prefix
    kept = torch.cat((torch.arange(prefix, device=x.device).expand(x.shape[0], prefix), kept), 1)
    rest = x.shape[2:]
    y = x.gather(1, kept.reshape(*kept.shape, *(1,) * len(rest)).expand(*kept.shape, *rest))
    return (y, kept) if indices else y


@dense_inputs
def hidden_cut(x: Tensor, p: float = 0.1, training: bool = True, *, key: KeyLike = None) -> Tensor:
    """HiddenCut: zeroes one span of neighboring tokens of each example in a hidden layer.

    The span has round(p T) tokens, and its start is uniform over the positions where it fits.
    Nothing is scaled, and evaluation is ``x``. The authors also choose spans by the attention that
    they receive; that choice is not implemented. Padding counts as tokens.

    Args:
        x: [b, T, ...], after the feed-forward part of a transformer layer.
        p: The fraction of tokens to drop, in [0, 1]; 0.1 in the paper.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where ``x`` has fewer than two axes, or ``p`` is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> hidden_cut(torch.ones(2, 8), 0.4, key=Key(seed=1))
        tensor([[1., 0., 0., 0., 1., 1., 1., 1.],
                [1., 1., 1., 1., 1., 0., 0., 0.]])

    Reference:
        Chen, Shen, Chen, Yang 2021, "HiddenCut: simple data augmentation for natural language
        understanding with better generalizability".
    """
    if x.dim() < 2:
        raise InputError(f"hidden_cut needs tokens [b, t, ...], but got {list(x.shape)}")
    check_rate(p)
    if is_noop(x, p, training):
        return x
    return x.masked_fill(_span(x, p, key).reshape(*x.shape[:2], *(1,) * (x.dim() - 2)), 0.0)


def _span(x: Tensor, p: Rate, key: KeyLike) -> Tensor:
    """Which tokens are dropped, bool [b, t]."""
    tokens = x.shape[1]
    length = (p * tokens).round() if isinstance(p, Tensor) else round(p * tokens)
    drawn = uniform((x.shape[0], 1), key, x.new_empty(0, dtype=torch.float64))
    first = (drawn * (tokens - length + 1)).floor()
    positions = torch.arange(tokens, device=x.device)
    return (positions >= first) & (positions < first + length)
