"""Dropout of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, overload

import torch
from torch import Tensor

from .._errors import InputError, probability, real, unknown
from ..algebra.key import stream_of
from ..engines.torch import reference
from ..engines.torch import tensor_key as _tensor_key
from .core import KeyLike, Rate, bernoulli_mask, inverted_dropout, is_noop, resolve_key
from .inputs import dense_inputs

Per = Literal["weight", "unit"]


@dense_inputs
def mixout(
    weight: Tensor,
    pretrained: Tensor,
    p: Rate = 0.5,
    training: bool = True,
    *,
    per: Per = "weight",
    key: KeyLike = None,
) -> Tensor:
    """Mixout: replaces weights by their pretrained values with probability ``p``; the mean is kept.

    (m w + (1 - m) u - p u) / (1 - p) = u + m (w - u) / (1 - p) while training, w in evaluation. The
    mean is w and the variance p / (1 - p) (w - u)^2; with u = 0 it is inverted DropConnect with one
    mask for the batch. The gradient is m / (1 - p); the backward pass of the authors leaves out the
    division.

    Args:
        weight: w, any shape.
        pretrained: u, of the same shape.
        p: The rate of replacing, in [0, 1]; 0.7 to 0.9 for fine-tuning. At 1 the result is u.
        training: Whether to draw; False computes the evaluation.
        per: "weight" draws for each weight, "unit" for each input (axis 1 of [out, in, ...]), as
            the code of the authors does.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``weight``.

    Raises:
        InputError: Where the shapes differ, or ``per`` is unknown or needs two axes.

    Example:
        >>> from thinned import Key
        >>> mixout(torch.ones(2, 3), torch.zeros(2, 3), 0.5, key=Key(seed=1))
        tensor([[0., 0., 2.],
                [0., 2., 0.]])

    Reference:
        Lee, Cho, Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained
        language models", equation 3.
    """
    _check_per(per, weight)
    if weight.shape != pretrained.shape:
        raise InputError(
            f"pretrained has to be of the shape of weight, {list(weight.shape)}, but got "
            f"{list(pretrained.shape)}"
        )
    if is_noop(weight, p, training):
        return weight
    anchor = pretrained.to(reference.wide(weight))
    moved = weight.to(anchor.dtype) - anchor
    dropped = (
        inverted_dropout(moved, p, key, "*", "*")
        if per == "weight"
        else inverted_dropout(moved, p, key, "i", "o i *")
    )
    return (anchor + dropped).to(weight.dtype)


@overload
def dare(tuned: Tensor, base: Tensor, p: float = ..., *, key: KeyLike = ...) -> Tensor: ...
@overload
def dare(
    tuned: Mapping[str, Tensor], base: Mapping[str, Tensor], p: float = ..., *, key: KeyLike = ...
) -> dict[str, Tensor]: ...
def dare(
    tuned: Tensor | Mapping[str, Tensor],
    base: Tensor | Mapping[str, Tensor],
    p: float = 0.9,
    *,
    key: KeyLike = None,
) -> Tensor | dict[str, Tensor]:
    """DARE: drops a fraction ``p`` of the changes that fine-tuning made, and rescales the others.

    base + m (tuned - base) / (1 - p), with one Bernoulli draw for each weight. It is :func:`mixout`
    applied once to finished weights, so that the deltas of several models can be added with fewer
    collisions; nothing is trained.

    Args:
        tuned: A fine-tuned weight, or a state dict.
        base: The pretrained weight of the same shape, or the state dict with the same names.
        p: The rate of dropping, in [0, 1]: 0.9, or 0.99 for large models. 1 returns ``base``.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor, or a dict of tensors; their draws are keyed by their names. Entries that are not
        floating point are taken from ``tuned``.

    Raises:
        InputError: Where only one of the two is a tensor, the names differ, or two shapes differ.

    Example:
        >>> from thinned import Key
        >>> dare(torch.full((6,), 2.0), torch.ones(6), 0.5, key=Key(seed=1))
        tensor([1., 1., 3., 1., 3., 1.])

    Reference:
        Yu, Yu, Yu, Huang, Li 2024, "Language models are super Mario".
    """
    if isinstance(tuned, Tensor) and isinstance(base, Tensor):
        return mixout(tuned, base, p, key=key)
    if isinstance(tuned, Tensor) or isinstance(base, Tensor):
        raise InputError(
            "tuned and base have to be two tensors or two state dicts, but got one of each"
        )
    differ = sorted(tuned.keys() ^ base.keys())
    if differ:
        raise InputError(
            f"tuned and base have to hold the same names, but only one of them has {differ[0]!r}"
        )
    tensor_key, merged = resolve_key(key), dict(tuned)
    for name, weight in tuned.items():
        if weight.is_floating_point():
            own = tensor_key._replace(
                stream=_tensor_key.to_int64(tensor_key.stream + stream_of(name))
            )
            merged[name] = mixout(weight, base[name], p, key=own)
    return merged


@dense_inputs
def targeted_dropout(
    weight: Tensor,
    p: Rate = 0.5,
    fraction: float = 0.5,
    training: bool = True,
    *,
    per: Per = "weight",
    key: KeyLike = None,
) -> Tensor:
    """Targeted dropout: drops only the smallest weights, to prepare a network for pruning.

    Candidates are floor(fraction n) of n weights, but never only some of several equal ones. While
    training each candidate is dropped with probability ``p``, without scaling; evaluation drops all
    candidates, which is the pruned network. With ``fraction=1`` it is DropConnect without scaling,
    with one mask for the batch.

    Args:
        weight: [out, in, ...].
        p: The rate of dropping of candidates, in [0, 1]. At 0 the result is ``weight``, in
            evaluation too; at 1 every call prunes.
        fraction: The fraction of candidates, in [0, 1]; 0.5 with a rate of 0.5, up to 0.9 with 0.75
            in the paper.
        training: Whether to draw; False computes the evaluation.
        per: "weight": the weights of each output that are smallest in magnitude; "unit": the
            outputs with the smallest Euclidean norms of their weights.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``weight``.

    Raises:
        InputError: Where ``weight`` has fewer than two axes, ``fraction`` is not in [0, 1], or
            ``per`` is unknown.

    Example:
        >>> from thinned import Key
        >>> weight = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
        >>> targeted_dropout(weight, 0.5, key=Key(seed=2)), targeted_dropout(weight, training=False)
        (tensor([[ 1.,  0.,  3., -4.]]), tensor([[ 0.,  0.,  3., -4.]]))

    Reference:
        Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019, "Learning sparse networks using
        targeted dropout".
    """
    _check_per(per, weight)
    fraction = probability(fraction, "the fraction of candidates")
    if weight.dim() < 2:
        raise InputError(
            f"targeted dropout needs a weight of shape [out, in, ...], but got {list(weight.shape)}"
        )
    if is_noop(weight, p, True):
        return weight
    dropped = _smallest(weight.detach().flatten(1), fraction, per).reshape(
        weight.shape if per == "weight" else (-1, *[1] * (weight.dim() - 1))
    )
    if training:
        layout = ("*", "*") if per == "weight" else ("o", "o *")
        dropped = dropped & ~bernoulli_mask(tuple(weight.shape), p, key, weight, *layout)
    return weight.masked_fill(dropped, 0.0)


def _smallest(rows: Tensor, fraction: float, per: Per) -> Tensor:
    """Which weights of each row, or which rows, are candidates."""
    size = (
        rows.abs()
        if per == "weight"
        else torch.linalg.vector_norm(rows, dim=1, dtype=reference.wide(rows))
    )
    n = size.shape[-1]
    count = int(fraction * n + 1e-6)  # 0.29 * 100 is 28.999999999999996
    if count == n:
        return torch.ones_like(size, dtype=torch.bool)
    return size < size.topk(count + 1, dim=-1, largest=False).values.amax(-1, keepdim=True)


def _check_per(per: Per, weight: Tensor) -> None:
    """Raise unless ``per`` is known and fits the axes of ``weight``."""
    if per not in ("weight", "unit"):
        raise unknown("per", per, ("weight", "unit"))
    if per == "unit" and weight.dim() < 2:
        raise InputError(
            f'per="unit" needs a weight of shape [out, in, ...], but got {list(weight.shape)}'
        )


def check_strength(c: float) -> float:
    """Return the strength ``c`` of shakeout, or raise unless it is at least 0."""
    value = real(c, "c")
    if not value >= 0:
        raise InputError(f"c has to be at least 0, but got {c}; 0 is dropout")
    return value


@dense_inputs
def shakeout(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    p: Rate = 0.5,
    c: float = 0.1,
    training: bool = True,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Shakeout: a linear layer where a dropped input turns its weights to -c sign(w) instead of 0.

    The weights are (m / q) w + c (m / q - 1) sign(w), q = 1 - p, with one Bernoulli draw for each
    example and input. The mean is the ordinary linear layer, which evaluation computes.

    Args:
        input: [b, ..., in].
        weight: [out, in].
        bias: [out], or None.
        p: The rate of dropping, in [0, 1].
        c: The strength, at least 0. At 0 this is dropout; larger values pull weights to 0 as an L1
            penalty does.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        [b, ..., out].

    Raises:
        InputError: Where ``c`` is below 0.

    Example:
        >>> from thinned import Key
        >>> weight = torch.tensor([[1.0, -1.0, 2.0]])
        >>> shakeout(torch.ones(2, 3), weight, c=0.5, key=Key(seed=2))
        tensor([[7.5000],
                [4.5000]])

    Reference:
        Kang, Li, Tao 2016, "Shakeout: a new regularized deep neural network training scheme",
        equation 3.
    """
    check_strength(c)
    if is_noop(input, p, training):
        return torch.nn.functional.linear(input, weight, bias)
    signs = c * weight.sign()
    kept = torch.nn.functional.linear(
        inverted_dropout(input, p, key, "b *", "b *"), weight + signs, bias
    )
    return kept - torch.nn.functional.linear(input, signs)
