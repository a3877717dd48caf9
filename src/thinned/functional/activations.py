"""Dropout of activations where the noise depends on them, and fast dropout, which draws nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, real
from ..engines.torch import reference
from .core import KeyLike, Rate, bernoulli_mask, check_rate, fold_in, is_noop, normal, uniform
from .inputs import dense_inputs

_NODES = 64  # of the Gauss-Hermite rule
_MIN_STD = 1e-12  # too small to change a result; below it the slopes of mean / std overflow


def check_jumpout(min_rate: float, max_rate: float, power: float) -> None:
    """Raise unless the arguments of :func:`jumpout` other than sigma are in range."""
    if not 0.0 <= real(min_rate, "min_rate") <= real(max_rate, "max_rate") < 1.0:
        raise InputError(
            "jumpout needs 0 <= min_rate <= max_rate < 1, but got "
            f"min_rate={min_rate} and max_rate={max_rate}; 0 and 0.6 are usual"
        )
    real(power, "power")


@dense_inputs
def jumpout(
    x: Tensor,
    sigma: Rate = 0.05,
    training: bool = True,
    *,
    min_rate: float = 0.0,
    max_rate: float = 0.6,
    power: float = 0.75,
    key: KeyLike = None,
) -> Tensor:
    """Jumpout: dropout after ReLU at a random rate, adapted to the fraction of active units.

    The rate p = min(min_rate + |N(0, sigma^2)|, max_rate) is drawn once for each call, so small
    rates are the most frequent. It is divided by the fraction of ``x`` above 0, so that a fraction
    p of all units is switched off however sparse the activations are; the quotient p' is at most
    ``max_rate``. Kept elements are multiplied by (1 - p')^-power. A power of 1 keeps the mean, 0.5
    the variance; 0.75 is the compromise of the paper. Evaluation is the identity. The fraction is
    taken over the whole batch, so splitting a batch changes p'.

    Args:
        x: [b, ...], the output of a ReLU; each element has its own Bernoulli draw.
        sigma: The standard deviation of the rate, in [0, 1].
        training: Whether to draw; False computes the evaluation.
        min_rate: The smallest rate that is drawn; 0 <= min_rate <= max_rate.
        max_rate: The largest rate that is drawn or used, below 1.
        power: The exponent of the scale of kept elements.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where 0 <= min_rate <= max_rate < 1 does not hold.

    Example:
        >>> from thinned import Key
        >>> x = torch.tensor([[1.0, 0.0, 2.0, 3.0, 0.0, 1.0]])
        >>> jumpout(x, sigma=0.3, key=Key(seed=3))
        tensor([[0.0000, 0.0000, 2.3961, 3.5941, 0.0000, 1.1980]])

    Reference:
        Wang, Zhou, Bilmes 2019, "Jumpout: improved dropout for deep neural networks with ReLUs",
        algorithm 1.
    """
    check_jumpout(min_rate, max_rate, power)
    check_rate(sigma, "sigma")
    if is_noop(x, sigma if min_rate == 0 else 1.0, training):
        return x
    drawn = (min_rate + sigma * normal((1,), fold_in(key, 1), x, per="", of="b").abs()).clamp(
        max=max_rate
    )
    active = (x.detach() > 0).double().mean().clamp_min(torch.finfo(torch.float32).tiny)
    p = (drawn.double() / active).clamp(max=max_rate).reshape(())
    rate = p if x.is_meta else p.cpu()
    gain = bernoulli_mask(tuple(x.shape), rate, key, x) * (1.0 - p) ** -power
    return (x * gain.to(reference.wide(x))).to(x.dtype)


@dense_inputs
def standout(
    x: Tensor,
    activation: Callable[[Tensor], Tensor] = torch.relu,
    alpha: float = 1.0,
    beta: float = 0.0,
    training: bool = True,
    *,
    key: KeyLike = None,
) -> Tensor:
    """Standout: keeps each unit with a probability that is a function of its own pre-activation.

    m activation(x) while training, with P(m = 1) = sigmoid(alpha x + beta); in evaluation the mean,
    sigmoid(alpha x + beta) activation(x). The network that computes the probabilities shares the
    weights of the layer, as in the experiments of the paper. No gradient flows through m.

    Args:
        x: [b, ...], pre-activations.
        activation: The activation function, applied element by element.
        alpha: The slope of the probabilities; at 0 this is classic dropout that keeps units with
            probability sigmoid(beta).
        beta: The offset of the probabilities; larger values keep more.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``activation(x)``.

    Example:
        >>> from thinned import Key
        >>> standout(torch.tensor([[-1.0, 0.5, 1.0, 2.0, 3.0]]), key=Key(seed=2))
        tensor([[0.0000, 0.5000, 1.0000, 0.0000, 3.0000]])

    Reference:
        Ba and Frey 2013, "Adaptive dropout for training deep neural networks", section 3.
    """
    keep = torch.sigmoid(alpha * x + beta)
    if not training:
        return activation(x) * keep
    drawn = uniform(tuple(x.shape), key, x) >= 1.0 - keep.detach().to(reference.wide(x))
    y = activation(x)
    return y * drawn.to(y.dtype)


@dense_inputs
def fast_dropout(
    mean: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    p: float = 0.5,
    var: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Fast dropout: mean and variance of a linear layer over all dropout masks of its inputs.

    Nothing is drawn. The inputs are independent of each other, with the given means and variances,
    and are under inverted dropout at rate p; with q = 1 - p the results are mean W + bias and
    (p/q mean^2 + var/q) W^2. Both are exact. That the sum is Gaussian is an approximation by the
    central limit theorem, which is good for many inputs.

    Args:
        mean: [b, ..., in], the means of the inputs.
        weight: [out, in].
        bias: [out], or None.
        p: The rate of dropping, in [0, 1).
        var: [b, ..., in], the variances of the inputs; None is 0.

    Returns:
        Mean and variance of the outputs, each [b, ..., out].

    Raises:
        InputError: Where ``p`` is not in [0, 1).

    Example:
        >>> fast_dropout(torch.ones(1, 3), torch.tensor([[1.0, 2.0, 3.0]]), p=0.5)
        (tensor([[6.]]), tensor([[14.]]))

    Reference:
        Wang and Manning 2013, "Fast dropout training", section 3.
    """
    check_rate(p, below_one=True)
    q = 1.0 - p
    variance = mean.square() * ((1.0 - q) / q)
    variance = variance if var is None else variance + var / q
    return F.linear(mean, weight, bias), F.linear(variance, weight.square())


@dense_inputs
def rectified_moments(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(0, z) for z ~ N(mean, var), element by element.

    With t = mean / std, E[max(0, z)] = mean Phi(t) + std phi(t), and the expected square is
    (mean^2 + var) Phi(t) + mean std phi(t).

    Args:
        mean: The means of z, any shape.
        var: The variances of z, at least 0, of the same shape.

    Returns:
        Mean and variance, each of the shape of ``mean``.

    Example:
        >>> rectified_moments(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))
        (tensor([0.3989, 2.0000]), tensor([0.3408, 0.0000]))

    Reference:
        Wang and Manning 2013, "Fast dropout training".
    """
    std = safe_sqrt(var)
    first = rectified_mean(mean, std)
    t = mean / std.clamp_min(_MIN_STD)
    phi = torch.exp(-0.5 * t.square()) / math.sqrt(2.0 * math.pi)
    below, above = torch.special.ndtr(-t), torch.special.ndtr(t)
    # the mean square minus the square of the mean, multiplied out to avoid cancellation
    variance = (
        mean.square() * above * below
        + mean * std * phi * (below - above)
        + var * (above - phi.square())
    )
    return first, variance.clamp_min(0.0)


@dense_inputs
def sigmoid_mean(mean: Tensor, var: Tensor) -> Tensor:
    """Approximates E[sigmoid(z)] for z ~ N(mean, var) by sigmoid(mean / sqrt(1 + pi var / 8)).

    Args:
        mean: The means of z, any shape.
        var: The variances of z, at least 0, of the same shape.

    Returns:
        A tensor of the shape of ``mean``.

    Example:
        >>> sigmoid_mean(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0]))
        tensor([0.5000, 0.7768])

    Reference:
        Wang and Manning 2013, "Fast dropout training", equation 8.
    """
    return torch.sigmoid(mean / (1.0 + math.pi / 8.0 * var).sqrt())


def safe_sqrt(var: Tensor) -> Tensor:
    """The square root, with slope 0 at 0, where its own slope is infinite.

    A row of zeros makes every variance 0, and a NaN gradient would follow.
    """
    nonzero = var != 0
    return var.where(nonzero, 1.0).sqrt().where(nonzero, 0.0)


def rectified_mean(mean: Tensor, std: Tensor) -> Tensor:
    """E[max(0, z)] for z ~ N(mean, std^2), element by element.

    It is :func:`thinned.algebra.moments.rectified_mean` for tensors.
    """
    dtype = mean.dtype
    if torch.finfo(dtype).bits < 32:  # what follows overflows in half precision
        mean, std = mean.float(), std.float()
    t = mean / std.clamp_min(_MIN_STD)
    phi = torch.exp(-0.5 * t.square()) / math.sqrt(2.0 * math.pi)
    y: Tensor = mean * torch.special.ndtr(t) + std * phi
    return y.to(dtype)


def expected_activation(act: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor) -> Tensor:
    """E[act(u)] for u ~ N(mean, var), element by element.

    The closed form for ReLU, Gauss-Hermite quadrature for other functions.
    """
    std = safe_sqrt(var)
    if isinstance(act, torch.nn.ReLU) or act in (F.relu, torch.relu):
        return rectified_mean(mean, std)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    total = torch.zeros_like(mean)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        total = total + weight * act(mean + std * node)
    return total
