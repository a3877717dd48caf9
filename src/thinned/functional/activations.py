"""What happens to activations where the draw depends on them; and dropout without drawing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError
from ..engines.torch import reference
from .core import Keyed, Rate, bernoulli_mask, check_rate, fold_in, is_noop, normal, uniform

_NODES = 64  # of the Gauss-Hermite rule
_FLAT = 1e-12  # a deviation that no result shows; below it the slopes of mean / std overflow


def jumpout(
    x: Tensor,
    sigma: Rate = 0.05,
    training: bool = True,
    *,
    least: float = 0.0,
    most: float = 0.6,
    power: float = 0.75,
    key: Keyed = None,
) -> Tensor:
    """Jumpout: dropout after ReLU whose rate is drawn, small rates most often, and falls on what is
    active.

    The rate p = min(least + |N(0, sigma^2)|, most) is drawn once a call, and divided by the share
    of ``x`` above 0, so that p is the share of all units that are switched off by the draw, however
    sparse they are. Survivors are multiplied by (1 - p')^-power, p' the divided rate: ``power``
    0.75 stands between keeping the mean (1) and the variance (0.5). ``x`` [b, ...], one coin for
    each element; ``sigma`` in [0, 1]; 0 <= ``least`` <= ``most`` < 1, where p' ends too. Evaluation
    is the identity. The share is the batch's own, so splitting a batch changes p'.

    Wang, Zhou, Bilmes 2019, "Jumpout: improved dropout for deep neural networks with ReLUs",
    algorithm 1.
    """
    if not 0.0 <= least <= most < 1.0:
        raise InputError(
            f"jumpout needs 0 <= least <= most < 1, but got least={least} and most={most}; 0 and 0.6 are usual"
        )
    if is_noop(x, sigma if least == 0 else 1.0, training):
        return x
    drawn = (least + sigma * normal((1,), fold_in(key, 1), x, per="", of="b").abs()).clamp(max=most)
    active = (x.detach() > 0).double().mean().clamp_min(torch.finfo(torch.float32).tiny)
    p = (drawn.double() / active).clamp(max=most).reshape(())
    gain = bernoulli_mask(tuple(x.shape), p.cpu(), key, x) * (1.0 - p) ** -power
    return (x * gain.to(reference.wide(x))).to(x.dtype)


def standout(
    x: Tensor,
    activation: Callable[[Tensor], Tensor] = torch.relu,
    alpha: float = 1.0,
    beta: float = 0.0,
    training: bool = True,
    *,
    key: Keyed = None,
) -> Tensor:
    """Standout: each unit is kept with a probability that its own pre-activation decides.

    m activation(x) while training, P(m = 1) = sigmoid(alpha x + beta); sigmoid(alpha x + beta)
    activation(x) in evaluation, which is the mean. ``x`` [b, ...] are pre-activations. ``alpha`` 0
    is classic dropout that keeps with sigmoid(beta). The network of the probabilities is tied to
    the weights, as in the paper's experiments; no gradient runs through m.

    Ba and Frey 2013, "Adaptive dropout for training deep neural networks", section 3.
    """
    keep = torch.sigmoid(alpha * x + beta)
    if not training:
        return activation(x) * keep
    drawn = uniform(tuple(x.shape), key, x) >= 1.0 - keep.detach().to(reference.wide(x))
    y = activation(x)
    return y * drawn.to(y.dtype)


def fast_dropout(
    mean: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    p: float = 0.5,
    var: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a linear layer whose inputs fall, over all masks: nothing is drawn.

    Inputs of mean ``mean`` and variance ``var`` (None: 0), both [b, ..., in], independent of each
    other, under inverted dropout at ``p`` in [0, 1). ``weight`` [out, in]. Returns mean W + bias
    and (p/q mean^2 + var/q) W^2, both [b, ..., out]. Both are exact; that the sum is Gaussian is
    the central limit theorem's, and holds for many inputs.

    Wang and Manning 2013, "Fast dropout training", section 3.
    """
    check_rate(p, below_one=True)
    q = 1.0 - p
    spread = mean.square() * ((1.0 - q) / q)
    spread = spread if var is None else spread + var / q
    return F.linear(mean, weight, bias), F.linear(spread, weight.square())


def rectified_moments(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(0, z), z ~ N(mean, var), element by element.

    E = mean Phi(t) + std phi(t) with t = mean / std, and E of the square = (mean^2 + var) Phi(t) +
    mean std phi(t).
    """
    std = root(var)
    first = rectified(mean, std)
    t = mean / std.clamp_min(_FLAT)
    phi = torch.exp(-0.5 * t.square()) / math.sqrt(2.0 * math.pi)
    below, above = torch.special.ndtr(-t), torch.special.ndtr(t)
    # E of the square less the square of E, multiplied out: no large numbers are subtracted
    spread = (
        mean.square() * above * below
        + mean * std * phi * (below - above)
        + var * (above - phi.square())
    )
    return first, spread.clamp_min(0.0)


def sigmoid_mean(mean: Tensor, var: Tensor) -> Tensor:
    """E[sigmoid(z)], z ~ N(mean, var), nearly: sigmoid(mean / sqrt(1 + pi var / 8)) (Wang and
    Manning 2013, equation 8).
    """
    return torch.sigmoid(mean / (1.0 + math.pi / 8.0 * var).sqrt())


def root(var: Tensor) -> Tensor:
    """The square root, with slope 0 at 0, where its own is infinite: a row of zeros brings every
    variance there.
    """
    some = var != 0
    return var.where(some, 1.0).sqrt().where(some, 0.0)


def rectified(mean: Tensor, std: Tensor) -> Tensor:
    """E[max(0, z)], z ~ N(mean, std^2), element by element;
    :func:`thinned.algebra.moments.rectified` for tensors.
    """
    dtype = mean.dtype
    if torch.finfo(dtype).bits < 32:  # half precision has no room for what follows
        mean, std = mean.float(), std.float()
    t = mean / std.clamp_min(_FLAT)
    phi = torch.exp(-0.5 * t.square()) / math.sqrt(2.0 * math.pi)
    y: Tensor = mean * torch.special.ndtr(t) + std * phi
    return y.to(dtype)


def expected(act: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor) -> Tensor:
    """E[act(u)] for u ~ N(mean, var), element by element: in closed form for ReLU, else by
    Gauss-Hermite quadrature.
    """
    std = root(var)
    if isinstance(act, torch.nn.ReLU) or act in (F.relu, torch.relu):
        return rectified(mean, std)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    total = torch.zeros_like(mean)
    for node, weight in zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True):
        total = total + weight * act(mean + std * node)
    return total
