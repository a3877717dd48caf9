"""Dropout of feature maps and images [b, c, *map] beyond the specs of the algebra."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import presets
from .._errors import InputError, whole
from ..algebra.per import seed_rate
from ..engines.torch import reference
from .core import (
    KeyLike,
    Rate,
    bernoulli_mask,
    check_rate,
    fold_in,
    is_noop,
    mask,
    normal,
    resolve_key,
    uniform,
)
from .inputs import dense_inputs

_EXACT = torch.float64  # for draws of positions and orders, where float32 would round visibly


@dense_inputs
def disout(
    x: Tensor,
    p: float = 0.1,
    block_size: int | tuple[int, ...] = 6,
    alpha: float = 1.0,
    scale: float | Tensor = 0.01,
    training: bool = True,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Disout: distorts the blocks of DropBlock instead of zeroing them.

    y = (m x + (1 - m) alpha scale std(x) n) numel(m) / sum(m) while training, ``x`` in evaluation.
    m is the mask of :func:`thinned.presets.drop_block`, n ~ N(0, 1) for each element, and std(x) is
    taken over the whole tensor. As in the code of the authors, the backward pass treats the size of
    the noise as constant: the gradient is m numel(m) / sum(m). Where nothing is kept the noise is
    not scaled up; published code divides by zero there.

    Args:
        x: [b, c, *map] with one to three map axes.
        p: The rate of dropping, in [0, 1].
        block_size: The sides of a block, at most those of the map; one number for all axes.
        alpha: The strength of the noise, at least 0; at 0 this is DropBlock.
        scale: A factor of the noise; or a tensor that broadcasts to ``x``, such as [1, c, 1, 1]
            from the weights of the following layer, as the code of the authors has for
            convolutions.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where ``x`` has another number of axes, ``p`` or ``alpha`` is out of range, or a
            block is larger than the map.

    Example:
        >>> from thinned import Key
        >>> disout(torch.ones(1, 1, 8), 0.3, block_size=3, alpha=0.0, key=Key(seed=2))
        tensor([[[1.6000, 1.6000, 1.6000, 0.0000, 0.0000, 0.0000, 1.6000, 1.6000]]])

    Reference:
        Tang, Wang, Xu and others 2020, "Beyond dropout: feature map distortion to regularize deep
        neural networks".
    """
    _check_maps(x, "disout", 3)
    if not alpha >= 0:
        raise InputError(f"alpha has to be at least 0, but got {alpha}; 0 is DropBlock")
    extent = _extent(block_size, tuple(x.shape[2:]))
    check_rate(p)
    if is_noop(x, p, training):
        return x
    tensor_key = resolve_key(key)
    keep = _block_mask(x, p, extent, tensor_key)
    gain = reference.inverse_kept_fraction(keep)
    y = x * (keep.to(reference.wide(x)) * gain)
    if alpha:
        scale = scale.to(x.device) if isinstance(scale, Tensor) else scale
        spread = x.detach().to(reference.wide(x)).std(correction=0) * (alpha * scale)
        noise = normal(tuple(x.shape), fold_in(tensor_key, 1), x, "b c *", "b c *")
        y = y + (noise * spread * gain).masked_fill(keep, 0.0)
    return y.to(x.dtype)


@dense_inputs
def cutout(
    x: Tensor, size: int = 16, holes: int = 1, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Cutout: zeroes squares of each example, the same in all its channels; nothing is scaled.

    The center of a square is uniform over all positions of the map, and the part beyond the border
    is cut off, so a square hides size^2 positions or fewer. It covers
    [center - size // 2, center - size // 2 + size) along each axis; the code of the authors makes
    odd sizes one smaller. Evaluation is ``x``.

    Args:
        x: [b, c, *map], mostly images after normalization, so that 0 is their mean.
        size: The side of a square, at least 1; the paper has 16 for CIFAR-10, 8 for CIFAR-100 and
            20 for SVHN.
        holes: The number of squares of each example, at least 1.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where ``x`` has no map axis, a number is below 1, or ``size`` would hide the
            whole map from every center.

    Example:
        >>> from thinned import Key
        >>> cutout(torch.ones(1, 1, 4, 6), size=2, key=Key(seed=1)).squeeze()
        tensor([[1., 0., 0., 1., 1., 1.],
                [1., 0., 0., 1., 1., 1.],
                [1., 1., 1., 1., 1., 1.],
                [1., 1., 1., 1., 1., 1.]])

    Reference:
        DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with
        cutout".
    """
    _check_maps(x, "cutout", None)
    size, holes = whole(size, "size", 1), whole(holes, "holes", 1)
    shape = tuple(x.shape[2:])
    if x.numel() and all(size // 2 >= n - 1 and size - size // 2 >= n for n in shape):
        raise InputError(f"size {size} would hide the whole map of {_by(shape)}; use a smaller one")
    if is_noop(x, 1.0, training):
        return x
    drawn = uniform(
        (x.shape[0], holes, len(shape)), key, x.new_empty(0, dtype=_EXACT), "b *", "b *"
    )
    hidden = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, n in enumerate(shape):
        first = (drawn[:, :, axis, None] * n).floor() - size // 2  # [b, holes, 1]
        positions = torch.arange(n, device=x.device)
        inside = (positions >= first) & (positions < first + size)
        hidden = hidden.unsqueeze(-1) & inside.reshape(*inside.shape[:2], *(1,) * axis, n)
    return x.masked_fill(hidden.any(1, keepdim=True), 0.0)


@dense_inputs
def max_pool_dropout(
    x: Tensor,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    p: float = 0.5,
    training: bool = True,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Max-pooling dropout: drops elements before max pooling; evaluation is the mean of the result.

    Training computes the maximum over each window of m x, with one Bernoulli draw for each element
    and no scaling. Of the values a_1 <= ... <= a_n of a window, the i-th is the maximum with
    probability q p^(n - i), q = 1 - p, and 0 with probability p^n. Evaluation is therefore the sum
    of a_i q p^(n - i), the probabilistic weighted pooling of the paper, and not the maximum. This
    is not stochastic pooling, where probabilities grow with the activation.

    Args:
        x: [b, c, *map] with one to three map axes, at least 0, as after ReLU.
        kernel_size: The sides of a window, as in ``torch.nn.functional.max_pool2d``.
        stride: The steps between windows; None is ``kernel_size``. There is no padding.
        p: The rate of dropping, in [0, 1]; 0 is max pooling.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        [b, c, *pooled], of the dtype of ``x``.

    Raises:
        InputError: Where ``x`` has another number of axes or a negative element, ``p`` is not in
            [0, 1], or a window does not fit the map.

    Example:
        >>> from thinned import Key
        >>> x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
        >>> max_pool_dropout(x, 2, p=0.5, key=Key(seed=1)), max_pool_dropout(x, 2, training=False)
        (tensor([[[0., 3.]]]), tensor([[[1.2500, 2.7500]]]))

    Reference:
        Wu and Gu 2015, "Max-pooling dropout for regularization of convolutional neural networks".
    """
    _check_maps(x, "max-pooling dropout", 3)
    shape = tuple(x.shape[2:])
    windows = _extent(kernel_size, shape, "kernel_size")
    steps = windows if stride is None else _per_axis(stride, len(shape), "stride")
    check_rate(p)
    has_values = x.numel() and not x.is_meta and not torch.compiler.is_compiling()
    if has_values and bool((x < 0).any()):
        raise InputError(
            f"max-pooling dropout needs inputs of at least 0, but got {x.min():g}; put it after a "
            "ReLU"
        )
    if not training and p != 0 and x.numel():
        return _weighted_pool(x, windows, steps, p)
    if not is_noop(x, p, training):
        x = x * bernoulli_mask(tuple(x.shape), p, key, x)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(shape) - 1]
    return pool(x, windows, steps)


def _weighted_pool(x: Tensor, windows: tuple[int, ...], steps: tuple[int, ...], p: float) -> Tensor:
    """Sum over each window, with values in ascending order, of a_i (1 - p) p^(n - i)."""
    rest = x
    for axis, (window, step) in enumerate(zip(windows, steps, strict=True)):
        rest = rest.unfold(2 + axis, window, step)
    ordered = rest.flatten(x.dim()).sort(-1).values
    count = ordered.shape[-1]
    weights = [(1.0 - p) * p ** (count - 1 - i) for i in range(count)]
    wide = reference.wide(x)
    return (
        (ordered.to(wide) * torch.tensor(weights, dtype=wide, device=x.device)).sum(-1).to(x.dtype)
    )


@dense_inputs
def weighted_channel_dropout(
    x: Tensor, p: float = 0.5, extra: float = 0.0, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Weighted channel dropout: drops a fixed number of channels, likelier those of low activation.

    The score s_c of a channel is its mean over the map. Of C channels those with the C - round(p C)
    largest values r^(1 / s_c), r ~ U(0, 1), are kept (weighted sampling without replacement), at
    least one. They are multiplied by sum(s) / sum(s of the kept channels), which keeps the sum of
    the scores. Then each kept channel is dropped with probability ``extra``, without scaling,
    except where none would be left. With equal scores this is dropout of a fixed number of
    channels. The gradient treats the scale as constant; dropped channels get no gradient.
    Evaluation is ``x``.

    Args:
        x: [b, c, *map], after ReLU. Channels with scores of 0 or less are kept last, with equal
            probability.
        p: The fraction of channels to drop, in [0, 1].
        extra: The rate of dropping of each kept channel, in [0, 1).
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where ``x`` has no map axis, or a rate is out of range.

    Example:
        >>> from thinned import Key
        >>> x = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
        >>> weighted_channel_dropout(x, 0.5, key=Key(seed=1)).flatten()
        tensor([0.0000, 0.0000, 4.2857, 5.7143])

    Reference:
        Hou and Wang 2019, "Weighted channel dropout for regularization of deep convolutional neural
        network".
    """
    _check_maps(x, "weighted channel dropout", None)
    check_rate(p)
    check_rate(extra, "the extra rate", below_one=True)
    if is_noop(x, p, training):
        return x
    tensor_key, channels = resolve_key(key), x.shape[1]
    scores = x.detach().to(_EXACT).flatten(2).mean(2).clamp_min(_MIN_SCORE)
    drawn = uniform((x.shape[0], channels), tensor_key, scores).log() / scores
    rank = drawn.argsort(1).argsort(1)
    dropped = (p * channels).round() if isinstance(p, Tensor) else round(p * channels)
    kept = (rank >= dropped) | (rank == channels - 1)
    gain = scores.sum(1, keepdim=True) / (scores * kept).sum(1, keepdim=True)
    if extra:
        rate = torch.where(p > 0, extra, 0.0) if isinstance(p, Tensor) else extra
        remaining = kept & bernoulli_mask((x.shape[0], channels), rate, fold_in(tensor_key, 1), x)
        kept = torch.where(remaining.any(1, keepdim=True), remaining, kept)
    factor = (kept * gain).to(reference.wide(x))
    return (x * factor.reshape(*factor.shape, *(1,) * (x.dim() - 2))).to(x.dtype)


_MIN_SCORE = 1e-30  # lower than any real score; such scores are ordered by their draws alone


def _check_maps(x: Tensor, what: str, max_axes: int | None) -> None:
    """Raise unless ``x`` is [b, c, *map] with at most ``max_axes`` map axes."""
    axes = x.dim() - 2
    if axes < 1 or (max_axes is not None and axes > max_axes):
        allowed = "at least one map axis" if max_axes is None else "one to three map axes"
        raise InputError(
            f"{what} needs maps [b, c, *map] with {allowed}, but got {list(x.shape)}; for one "
            "example write x.unsqueeze(0)"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _per_axis(value: int | tuple[int, ...], axes: int, what: str) -> tuple[int, ...]:
    """One whole number of at least 1 for each map axis."""
    numbers = value if isinstance(value, (tuple, list)) else (value,) * axes
    if len(numbers) != axes:
        raise InputError(f"{what} {value} has {len(numbers)} numbers, but the map has {axes} axes")
    return tuple(whole(n, what, 1) for n in numbers)


def _extent(
    value: int | tuple[int, ...], shape: tuple[int, ...], what: str = "block"
) -> tuple[int, ...]:
    """:func:`_per_axis`, none larger than the map."""
    extent = _per_axis(value, len(shape), what)
    if any(e > n for e, n in zip(extent, shape, strict=True)):
        raise InputError(
            f"{what} {value} is larger than the map of {_by(shape)}; use at most its shorter side"
        )
    return extent


def _block_mask(x: Tensor, p: Rate, extent: tuple[int, ...], key: KeyLike) -> Tensor:
    """The mask of :func:`thinned.presets.drop_block`.

    A graph draws it without a plan, so that ``p`` may change.
    """
    shape, full = tuple(x.shape), (1, 1, *extent)
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        return mask(presets.drop_block(p, extent), shape, resolve_key(key), x.device)
    seeds = (*shape[:2], *(n - e + 1 for n, e in zip(shape[2:], extent, strict=True)))
    p = torch.as_tensor(p, dtype=torch.float64)
    rate = torch.where(p < 1, p * seed_rate(1.0, full, shape), 1.0)  # at 1 everything is dropped
    return ~reference.dilated(~bernoulli_mask(seeds, rate, key, x), full)
