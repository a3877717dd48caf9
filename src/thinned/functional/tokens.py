"""What happens to sequences of tokens: [b, t, ...]."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import InputError, whole
from .core import Keyed, Rate, check_rate, is_noop, random_subset, uniform


def patch_dropout(
    x: Tensor,
    p: float = 0.5,
    prefix: int = 1,
    training: bool = True,
    indices: bool = False,
    *,
    key: Keyed = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """PatchDropout: a vision transformer sees fewer patches while training, and the sequence is
    shorter.

    Of the T - ``prefix`` tokens after the first ``prefix`` (the class token, which always stays; 0
    without one) int((1 - p) (T - prefix)) stay, every subset as likely, in their order, each
    example its own. Nothing is scaled. ``x`` [b, T, ...] with positions already added; the result
    [b, kept, ...], which is ``x`` at p = 0 and in evaluation. ``indices``: return also the places
    of what stayed, int64 [b, kept]. A rate that leaves no patch is refused.

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
    count = int((1.0 - p) * patches + 1e-9)  # 0.1 of 10 is one, in spite of rounding
    if count < 1:
        raise InputError(
            f"rate {p} would drop all {patches} patches; use a rate of at most {1 - 1 / patches:.4g}"
        )
    kept = random_subset(x.shape[0], patches, count, key, x.device) + prefix
    kept = torch.cat((torch.arange(prefix, device=x.device).expand(x.shape[0], prefix), kept), 1)
    rest = x.shape[2:]
    y = x.gather(1, kept.reshape(*kept.shape, *(1,) * len(rest)).expand(*kept.shape, *rest))
    return (y, kept) if indices else y


def hidden_cut(x: Tensor, p: float = 0.1, training: bool = True, *, key: Keyed = None) -> Tensor:
    """HiddenCut: one span of neighbouring tokens of each example is zeroed in a hidden layer;
    nothing is scaled.

    The span is round(p T) tokens long, and its start is uniform over the places where it fits.
    ``x`` [b, T, ...], after the feed-forward part of each transformer layer; ``p`` in [0, 1], 0.1
    in the paper. Evaluation is x. The authors also choose spans by the attention that they receive;
    that choice is not here, and padding counts as tokens.

    Chen, Shen, Chen, Yang 2021, "HiddenCut: simple data augmentation for natural language
    understanding with better generalizability".
    """
    if x.dim() < 2:
        raise InputError(f"hidden_cut needs tokens [b, t, ...], but got {list(x.shape)}")
    check_rate(p)
    if is_noop(x, p, training):
        return x
    return x.masked_fill(_span(x, p, key).reshape(*x.shape[:2], *(1,) * (x.dim() - 2)), 0.0)


def _span(x: Tensor, p: Rate, key: Keyed) -> Tensor:
    """Which tokens fall, [b, t]."""
    tokens = x.shape[1]
    length = (p * tokens).round() if isinstance(p, Tensor) else round(p * tokens)
    drawn = uniform((x.shape[0], 1), key, x.new_empty(0, dtype=torch.float64))
    first = (drawn * (tokens - length + 1)).floor()
    places = torch.arange(tokens, device=x.device)
    return (places >= first) & (places < first + length)
