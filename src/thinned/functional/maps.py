"""What happens to feature maps and images, beyond the points of the algebra: [b, c, *map] with one
to three map axes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import presets
from .._errors import InputError, whole
from ..algebra.per import seed_rate
from ..engines.torch import reference
from .core import (
    Keyed,
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

_EXACT = torch.float64  # of the few draws whose rounding would show: places and orders


def disout(
    x: Tensor,
    p: float = 0.1,
    block_size: int | tuple[int, ...] = 6,
    alpha: float = 1.0,
    scale: float | Tensor = 0.01,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """Disout: DropBlock's blocks are distorted instead of zeroed.

    y = (m x + (1 - m) alpha scale std(x) n) numel(m) / sum(m) while training, x in evaluation. m is
    :func:`thinned.presets.dropblock`'s mask, n ~ N(0, 1) for each element, std(x) that of the whole
    tensor. ``x`` [b, c, *map]; ``p`` in [0, 1]; ``block_size`` at most the map; ``alpha`` >= 0: at 0
    this is DropBlock. ``scale``: 0.01, or a tensor that broadcasts to ``x``, such as [1, c, 1, 1]
    from the following layer's weights, as the authors' code has for convolutions. As there the size
    of the noise is no function of ``x`` to the backward pass: the gradient is m numel(m) / sum(m).
    Where nothing stays the noise is not scaled up, while published code divides by zero.

    Tang, Wang, Xu and others 2020, "Beyond dropout: feature map distortion to regularize deep
    neural networks".
    """
    _maps(x, "disout", 3)
    if not alpha >= 0:
        raise InputError(f"alpha has to be at least 0, but got {alpha}; 0 is DropBlock")
    extent = _extent(block_size, tuple(x.shape[2:]))
    check_rate(p)
    if is_noop(x, p, training):
        return x
    tensor_key = resolve_key(key)
    keep = _blocks(x, p, extent, tensor_key)
    gain = reference.share(keep)
    y = x * (keep.to(reference.wide(x)) * gain)
    if alpha:
        scale = scale.to(x.device) if isinstance(scale, Tensor) else scale
        spread = x.detach().to(reference.wide(x)).std(correction=0) * (alpha * scale)
        noise = normal(tuple(x.shape), fold_in(tensor_key, 1), x, "b c *", "b c *")
        y = y + (noise * spread * gain).masked_fill(keep, 0.0)
    return y.to(x.dtype)


def cutout(
    x: Tensor, size: int = 16, holes: int = 1, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """Cutout: ``holes`` squares of side ``size`` of each example are zeroed, in all its channels
    alike; nothing is scaled.

    ``x`` [b, c, *map], mostly images after normalisation, so that 0 is their mean; ``size`` and
    ``holes`` at least 1 (16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN in the paper). A hole's
    centre is uniform over all places of the map, and what stands over the border is cut off, so
    that a hole hides size^2 places or fewer. It covers [c - size // 2, c - size // 2 + size) along
    each axis; the authors' code makes odd sizes one smaller. A size that would hide the whole map
    from every centre is refused. Evaluation is x.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with cutout".
    """
    _maps(x, "cutout", None)
    size, holes = whole(size, "size", 1), whole(holes, "holes", 1)
    shape = tuple(x.shape[2:])
    if x.numel() and all(size // 2 >= n - 1 and size - size // 2 >= n for n in shape):
        raise InputError(
            f"size {size} would hide every map of {_by(shape)} wholly; use a smaller one"
        )
    if is_noop(x, 1.0, training):
        return x
    where = uniform(
        (x.shape[0], holes, len(shape)), key, x.new_empty(0, dtype=_EXACT), "b *", "b *"
    )
    hidden = torch.ones((), dtype=torch.bool, device=x.device)
    for axis, n in enumerate(shape):
        first = (where[:, :, axis, None] * n).floor() - size // 2  # [b, holes, 1]
        places = torch.arange(n, device=x.device)
        inside = (places >= first) & (places < first + size)
        hidden = hidden.unsqueeze(-1) & inside.reshape(*inside.shape[:2], *(1,) * axis, n)
    return x.masked_fill(hidden.any(1, keepdim=True), 0.0)


def max_pool_dropout(
    x: Tensor,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    p: float = 0.5,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """Max-pooling dropout: elements fall before max pooling, and evaluation weighs what may win.

    Training: the maximum over each window of m x, one coin for each element, nothing scaled. Of a
    window's values in ascending order a_1 <= ... <= a_n the i-th wins with probability q p^(n - i),
    q = 1 - p, and 0 with p^n; so evaluation is the mean sum_i a_i q p^(n - i), the paper's
    probabilistic weighted pooling, and not the maximum. ``x`` [b, c, *map], at least 0, as after
    ReLU; ``p`` in [0, 1], 0 is max pooling; windows as ``torch.nn.functional.max_pool2d`` has
    without padding. This is not stochastic pooling, whose probabilities grow with the activation.

    Wu and Gu 2015, "Max-pooling dropout for regularization of convolutional neural networks".
    """
    _maps(x, "max-pooling dropout", 3)
    shape = tuple(x.shape[2:])
    windows = _extent(kernel_size, shape, "kernel_size")
    steps = windows if stride is None else _numbers(stride, len(shape), "stride")
    check_rate(p)
    if not torch.compiler.is_compiling() and x.numel() and bool((x < 0).any()):
        raise InputError(
            f"max-pooling dropout needs inputs of at least 0, but got {x.min():g}; put it after ReLU"
        )
    if not training and p != 0 and x.numel():
        return _weighted(x, windows, steps, p)
    if not is_noop(x, p, training):
        x = x * bernoulli_mask(tuple(x.shape), p, key, x)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(shape) - 1]
    return pool(x, windows, steps)


def _weighted(x: Tensor, windows: tuple[int, ...], steps: tuple[int, ...], p: float) -> Tensor:
    """Over each window in ascending order: sum_i a_i (1 - p) p^(n - i)."""
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


def weighted_channel_dropout(
    x: Tensor, p: float = 0.5, extra: float = 0.0, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """Weighted channel dropout: a fixed number of channels falls, those with small activations
    sooner.

    The score s_c of a channel is its mean over the map. Of C channels those with the C - round(p C)
    largest keys r^(1 / s_c), r ~ U(0, 1), stay (weighted choice without replacement), at least one;
    they are multiplied by sum(s) / sum(s of those that stay), so that the sum of scores is kept.
    Then each of them falls with probability ``extra``, without scaling, except where none would be
    left. ``x`` [b, c, *map], after ReLU; scores of 0 or less are chosen last, by equal chances.
    ``p`` in [0, 1], ``extra`` in [0, 1). With equal scores this is dropout of a fixed number of
    channels. The gradient takes the scale as a constant: channels that fell get none. Evaluation is
    x.

    Hou and Wang 2019, "Weighted channel dropout for regularization of deep convolutional neural
    network".
    """
    _maps(x, "weighted channel dropout", None)
    check_rate(p)
    check_rate(extra, "the extra rate", below_one=True)
    if is_noop(x, p, training):
        return x
    tensor_key, channels = resolve_key(key), x.shape[1]
    scores = x.detach().to(_EXACT).flatten(2).mean(2).clamp_min(_LEAST)
    drawn = uniform((x.shape[0], channels), tensor_key, scores).log() / scores
    place = drawn.argsort(1).argsort(1)
    fell = (p * channels).round() if isinstance(p, Tensor) else round(p * channels)
    stays = (place >= fell) | (place == channels - 1)
    gain = scores.sum(1, keepdim=True) / (scores * stays).sum(1, keepdim=True)
    if extra:
        rate = torch.where(p > 0, extra, 0.0) if isinstance(p, Tensor) else extra
        left = stays & bernoulli_mask((x.shape[0], channels), rate, fold_in(tensor_key, 1), x)
        stays = torch.where(left.any(1, keepdim=True), left, stays)
    factor = (stays * gain).to(reference.wide(x))
    return (x * factor.reshape(*factor.shape, *(1,) * (x.dim() - 2))).to(x.dtype)


_LEAST = 1e-30  # a score that loses against any real one, and orders its like by their draws alone


def _maps(x: Tensor, what: str, most: int | None) -> None:
    axes = x.dim() - 2
    if axes < 1 or (most is not None and axes > most):
        among = "at least one map axis" if most is None else "one to three map axes"
        raise InputError(
            f"{what} needs maps [b, c, *map] with {among}, but got {list(x.shape)}; for one example write x.unsqueeze(0)"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _numbers(given: int | tuple[int, ...], axes: int, what: str) -> tuple[int, ...]:
    """One whole number of at least 1 for each map axis."""
    numbers = (given,) * axes if isinstance(given, int) else tuple(given)
    if len(numbers) != axes:
        raise InputError(f"{what} {given} has {len(numbers)} numbers, but the map has {axes} axes")
    return tuple(whole(n, what, 1) for n in numbers)


def _extent(
    given: int | tuple[int, ...], shape: tuple[int, ...], what: str = "block"
) -> tuple[int, ...]:
    """:func:`_numbers`, none larger than the map."""
    extent = _numbers(given, len(shape), what)
    if any(e > n for e, n in zip(extent, shape, strict=True)):
        raise InputError(
            f"{what} {given} is larger than the map of {_by(shape)}; use at most the map's shorter side"
        )
    return extent


def _blocks(x: Tensor, p: Rate, extent: tuple[int, ...], key: Keyed) -> Tensor:
    """The mask of :func:`thinned.presets.dropblock`; in a graph drawn without a plan, so that ``p``
    may move.
    """
    shape, full = tuple(x.shape), (1, 1, *extent)
    if not isinstance(p, Tensor) and not torch.compiler.is_compiling():
        return mask(presets.drop_block(p, extent), shape, resolve_key(key), x.device)
    seeds = (*shape[:2], *(n - e + 1 for n, e in zip(shape[2:], extent, strict=True)))
    p = torch.as_tensor(p, dtype=torch.float64)
    rate = torch.where(p < 1, p * seed_rate(1.0, full, shape), 1.0)  # at 1 every place falls
    return ~reference.dilated(~bernoulli_mask(seeds, rate, key, x), full)
