"""Dropout of residual branches, beyond the specs of :mod:`thinned.presets.depth`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._errors import InputError, real, unknown
from ..engines.torch import reference
from .core import (
    KeyLike,
    Rate,
    bernoulli_mask,
    check_rate,
    check_same_shape,
    fold_in,
    is_noop,
    resolve_key,
    uniform,
)
from .inputs import dense_inputs

Backward = Literal["shake", "even", "keep"]


def _two_slopes(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """``forward`` * x, with a gradient of ``backward`` times the gradient of the result."""
    wide = x.to(reference.wide(x))
    slope = wide * backward
    return (slope + (wide * forward - slope).detach()).to(x.dtype)


@dense_inputs
def shake_shake(
    first: Tensor,
    second: Tensor,
    training: bool = True,
    *,
    backward: Backward = "shake",
    key: KeyLike = None,
) -> Tensor:
    """Shake-Shake: blends two residual branches by a random weight, and their gradients by another.

    a first + (1 - a) second while training, with a ~ U(0, 1) for each example; in evaluation
    (first + second) / 2. The gradients are weighted by b and 1 - b, so with "shake" and "even" the
    gradient is intentionally not the derivative of the output.

    Args:
        first: [b, ...], the output of one branch.
        second: The output of the other branch, of the same shape.
        training: Whether to draw; False computes the evaluation.
        backward: "shake" draws b ~ U(0, 1) independently of a, "even" sets b = 1/2, "keep" b = a.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``first``.

    Raises:
        InputError: Where the shapes differ or ``backward`` is unknown.

    Example:
        >>> from thinned import Key
        >>> shake_shake(torch.zeros(3, 2), torch.ones(3, 2), key=Key(seed=1))
        tensor([[0.7207, 0.7207],
                [0.0295, 0.0295],
                [0.0052, 0.0052]])

    Reference:
        Gastaldi 2017, "Shake-shake regularization", section 1.
    """
    check_same_shape(first, second, "the two branches of Shake-Shake")
    if backward not in ("shake", "even", "keep"):
        raise unknown("backward", backward, ("shake", "even", "keep"))
    if not training or not first.numel():
        return 0.5 * (first + second)
    shape = tuple(first.shape)
    tensor_key = resolve_key(key)
    a = uniform(shape, tensor_key, first, per="b", of="b *")
    if backward == "keep":
        b = a
    else:
        b = (
            uniform(shape, fold_in(tensor_key, 1), first, per="b", of="b *")
            if backward == "shake"
            else torch.full_like(a, 0.5)
        )
    return _two_slopes(first, a, b) + _two_slopes(second, 1.0 - a, 1.0 - b)


def check_range(name: str, ends: tuple[float, float]) -> tuple[float, float]:
    """Return ``ends``, or raise unless it is (low, high) with low <= high."""
    pair = isinstance(ends, (tuple, list)) and len(ends) == 2
    if not pair or not real(ends[0], f"low of {name}") <= real(ends[1], f"high of {name}"):
        raise InputError(
            f"{name} has to be a range (low, high) with low <= high, but got {ends!r}; "
            "the paper uses (-1, 1) for alpha and (0, 1) for beta"
        )
    return ends[0], ends[1]


@dense_inputs
def shake_drop(
    branch: Tensor,
    p: Rate = 0.5,
    training: bool = True,
    *,
    alpha: tuple[float, float] = (-1.0, 1.0),
    beta: tuple[float, float] = (0.0, 1.0),
    key: KeyLike = None,
) -> Tensor:
    """ShakeDrop: with probability ``p`` multiplies a residual branch F by random numbers.

    One Bernoulli draw for the whole batch: with probability 1 - p the result is F. Otherwise it is
    a F with a ~ U(alpha) for each example, and the gradient is multiplied by b ~ U(beta) instead of
    a: intentionally it is not the derivative of the output. Evaluation is the mean,
    (1 - p + p E[a]) F. With both ranges (0, 0) this is stochastic depth.

    Args:
        branch: [b, ...], the output of the branch before the skip connection is added.
        p: The probability of shaking, in [0, 1]; it grows with depth to 0.5 in the last block, see
            :func:`thinned.presets.linear_rates`.
        training: Whether to draw; False computes the evaluation.
        alpha: The range (low, high) of the forward factors.
        beta: The range (low, high) of the backward factors.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``branch``; ``branch`` itself at p = 0.

    Raises:
        InputError: Where ``p`` is not in [0, 1], or a range has low > high.

    Example:
        >>> from thinned import Key
        >>> shake_drop(torch.ones(3, 2), 1.0, key=Key(seed=1))
        tensor([[-0.5871, -0.5871],
                [-0.9741, -0.9741],
                [-0.2210, -0.2210]])

    Reference:
        Yamada, Iwamura, Akiba, Kise 2019, "ShakeDrop regularization for deep residual learning",
        equation 4.
    """
    check_range("alpha", alpha)
    check_range("beta", beta)
    check_rate(p)
    if not isinstance(p, Tensor) and p == 0:
        return branch
    if not training:
        return branch * (1.0 - p + p * 0.5 * (alpha[0] + alpha[1]))
    if not branch.numel():
        return branch
    tensor_key = resolve_key(key)
    shape = tuple(branch.shape)
    kept = bernoulli_mask(shape, p, tensor_key, branch, per="", of="b *")
    drawn = [uniform(shape, fold_in(tensor_key, n), branch, per="b", of="b *") for n in (1, 2)]
    ones = torch.ones_like(drawn[0])
    a, b = (
        ones.where(kept, low + (high - low) * u)
        for u, (low, high) in zip(drawn, (alpha, beta), strict=True)
    )
    return _two_slopes(branch, a, b)


@dense_inputs
def swapout(
    input: Tensor,
    branch: Tensor,
    p: Rate = 0.5,
    training: bool = True,
    *,
    skip_p: float | None = None,
    key: KeyLike = None,
) -> Tensor:
    """Swapout: drops the units of the skip connection and of the branch independently.

    m1 x + m2 F(x) while training, with P(m1 = 0) = skip_p and P(m2 = 0) = p, and no scaling; so
    each unit is one of zero, skip, feed-forward and residual. In evaluation the mean, (1 - skip_p)
    x + (1 - p) F(x); the paper prefers an average of 30 samples (:func:`thinned.sampling`).
    ``skip_p=0`` is classic dropout of the branch.

    Args:
        input: [b, ...], the input x of the block.
        branch: The output F(x) of the branch, of the same shape.
        p: The rate of dropping of the branch, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        skip_p: The rate of dropping of the skip connection, in [0, 1]; None is ``p``.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape of ``input``.

    Raises:
        InputError: Where the shapes differ, or a rate is not in [0, 1].

    Example:
        >>> from thinned import Key
        >>> swapout(torch.ones(2, 5), torch.full((2, 5), 10.0), 0.5, key=Key(seed=1))
        tensor([[ 0., 10., 11.,  0.,  1.],
                [ 1.,  1., 11., 11., 11.]])

    Reference:
        Singh, Hoiem, Forsyth 2016, "Swapout: learning an ensemble of deep architectures", equation
        4.
    """
    check_same_shape(input, branch, "input and branch")
    if skip_p is not None:
        check_rate(skip_p, "skip_p")
    check_rate(p)
    rates: tuple[Rate, Rate] = (p if skip_p is None else skip_p, p)
    if not training:
        return input * (1.0 - rates[0]) + branch * (1.0 - rates[1])
    tensor_key = resolve_key(key)
    drawn = [
        t
        if is_noop(t, rate, True)
        else t * bernoulli_mask(tuple(t.shape), rate, fold_in(tensor_key, n), t).to(t.dtype)
        for n, (t, rate) in enumerate(zip((input, branch), rates, strict=True))
    ]
    return drawn[0] + drawn[1]
