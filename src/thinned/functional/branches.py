"""What happens to residual branches, beyond the points of :mod:`thinned.presets.depth`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .._errors import InputError, unknown
from ..engines.torch import reference
from .core import (
    Keyed,
    Rate,
    bernoulli_mask,
    check_rate,
    fold_in,
    is_noop,
    one_shape,
    resolve_key,
    uniform,
)

Backward = Literal["shake", "even", "keep"]


def _two_slopes(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """``forward`` * x, whose gradient is ``backward`` * that of the result."""
    wide = x.to(reference.wide(x))
    slope = wide * backward
    return (slope + (wide * forward - slope).detach()).to(x.dtype)


def shake_shake(
    first: Tensor,
    second: Tensor,
    training: bool = True,
    *,
    backward: Backward = "shake",
    key: Keyed = None,
) -> Tensor:
    """Shake-Shake: two residual branches are blended by a random share, and the gradient by
    another.

    a first + (1 - a) second while training, a ~ U(0, 1) for each example; gradients flow with b and
    1 - b, b ~ U(0, 1) drawn anew (``backward="shake"``), 1/2 (``"even"``) or a itself (``"keep"``).
    (first + second) / 2 in evaluation. Both of shape [b, ...]. The gradient is not the slope of
    what was computed, on purpose; with ``"keep"`` it is.

    Gastaldi 2017, "Shake-shake regularization", section 1.
    """
    one_shape(first, second, "the two branches of Shake-Shake")
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


def shake_drop(
    branch: Tensor,
    p: Rate = 0.5,
    training: bool = True,
    *,
    alpha: tuple[float, float] = (-1.0, 1.0),
    beta: tuple[float, float] = (0.0, 1.0),
    key: Keyed = None,
) -> Tensor:
    """ShakeDrop: with probability ``p`` a residual branch is shaken instead of dropped.

    F while training with probability 1 - p, one coin for the batch; else a F, a ~ U(alpha) for each
    example, with gradients that flow with b ~ U(beta) instead. (1 - p + p E[a]) F in evaluation,
    which is the mean. ``branch`` [b, ...], before the addition of the skip; ``p`` grows with depth
    (:func:`thinned.presets.linear_rates`), 0.5 in the last block. With alpha and beta (0, 0) it is
    stochastic depth. The gradient is not the slope of what was computed, on purpose.

    Yamada, Iwamura, Akiba, Kise 2019, "ShakeDrop regularization for deep residual learning",
    equation 4.
    """
    for name, (low, high) in (("alpha", alpha), ("beta", beta)):
        if not low <= high:
            raise InputError(
                f"{name} has to be a range (low, high), but got {(low, high)}; the paper uses (-1, 1) and (0, 1)"
            )
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
    one = torch.ones_like(drawn[0])
    a, b = (
        one.where(kept, low + (high - low) * u)
        for u, (low, high) in zip(drawn, (alpha, beta), strict=True)
    )
    return _two_slopes(branch, a, b)


def swapout(
    input: Tensor,
    branch: Tensor,
    p: Rate = 0.5,
    training: bool = True,
    *,
    skip_p: float | None = None,
    key: Keyed = None,
) -> Tensor:
    """Swapout: the skip connection falls too, unit by unit and on its own.

    m1 x + m2 F(x) while training, P(m2 = 0) = ``p`` and P(m1 = 0) = ``skip_p`` (None: also ``p``),
    nothing scaled; (1 - skip_p) x + (1 - p) F(x) in evaluation, the mean (the paper prefers 30
    samples: :func:`thinned.sampling`). ``input`` and ``branch`` of one shape [b, ...]. ``skip_p=0``
    is classic dropout of the branch; each unit so samples among nothing, skip, feed-forward and
    residual.

    Singh, Hoiem, Forsyth 2016, "Swapout: learning an ensemble of deep architectures", equation 4.
    """
    one_shape(input, branch, "input and branch")
    if skip_p is not None:
        check_rate(skip_p, "skip_p")
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
