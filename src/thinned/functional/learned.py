"""Noise whose strength is learned, and the divergences that are paid for it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, unknown
from ..engines.torch import reference
from .core import Keyed, normal, uniform

Cells = Literal["element", "channel"]
LAYOUTS = {"element": ("b *", "b *"), "channel": ("b c", "b c *")}
_KINGMA = (1.16145124, -1.50204118, 0.58629921)
_MOLCHANOV = (0.63576, 1.8732, 1.48695)


def concrete_dropout(
    x: Tensor,
    logit: Tensor,
    temperature: float = 0.1,
    training: bool = True,
    *,
    per: Cells = "element",
    unbiased: bool = False,
    key: Keyed = None,
) -> Tensor:
    """Concrete dropout: a relaxed coin, so that the rate p = sigmoid(``logit``) has a gradient.

    x (1 - z) / (1 - p), z = sigmoid((logit p + logit u) / t), u ~ U(0, 1) while training; x in
    evaluation. ``x`` [b, ...], one u for each element, or for each example and channel of [b, c,
    ...]; ``logit`` a tensor of no axes; ``temperature`` t > 0: at 0 it would be dropout. The
    authors use 0.1 on dense layers and 2/3 on maps.

    As published the mean is not kept: E[1 - z] is not 1 - p but :func:`concrete_mean`; at p = 0.1
    the output is 0.13 % low for t = 0.1, and 5.0 % low for t = 2/3, beside evaluation. ``unbiased``
    divides by that mean instead of 1 - p.

    Gal, Hron, Kendall 2017, "Concrete dropout", section 3.
    """
    if per not in LAYOUTS:
        raise unknown("per", per, LAYOUTS)
    warmth(temperature)
    if not training or not x.numel():
        return x
    wide = reference.wide(x)
    logit = logit.to(wide)
    u = uniform(tuple(x.shape), key, x, *LAYOUTS[per])
    stays = torch.sigmoid(-(logit + u.log() - torch.log1p(-u)) / temperature)
    mean = concrete_mean(logit, temperature) if unbiased else torch.sigmoid(-logit)
    return (x.to(wide) * (stays / mean)).to(x.dtype)


def concrete_mean(logit: Tensor, temperature: float = 0.1) -> Tensor:
    """E[1 - z] of :func:`concrete_dropout`, in every element of ``logit``; differentiable, to about
    1e-8 for t up to 2.

    1 - p + t int_0^inf sigmoid(-s) (f(logit - t s) - f(logit + t s)) ds, f = sigmoid' the logistic
    density, by the double-exponential rule. 1 - p itself only at p = 1/2.
    """
    warmth(temperature)
    place = torch.linspace(-3.5, 3.8, 96, dtype=torch.float64, device=logit.device)
    s = torch.exp(place - torch.exp(-place))
    weights = s * (1.0 + torch.exp(-place)) * (7.3 / 95) * temperature * torch.sigmoid(-s)
    a = logit.double().unsqueeze(-1)
    low, high = a - temperature * s, a + temperature * s
    bent = torch.sigmoid(low) * torch.sigmoid(-low) - torch.sigmoid(high) * torch.sigmoid(-high)
    return (torch.sigmoid(-a.squeeze(-1)) + (weights * bent).sum(-1)).to(logit.dtype)


def concrete_divergence(
    logit: Tensor, features: int, weight: Tensor | None = None, length: float = 1.0
) -> Tensor:
    """KL of concrete dropout up to a constant, in nats: K (p log p + q log q) + length^2 / (2 q)
    sum ``weight``^2.

    p = sigmoid(``logit``), q = 1 - p, K = ``features``, the number of inputs (or channels) that
    have a coin. ``weight``: the weights [out, K, ...] that the noisy input meets, without it the
    second term is left out; ``length``: the prior's length scale. Add it, divided by the number of
    training examples, to the mean negative log-likelihood. The authors' code adds twice this for
    regression, to twice the log-likelihood, and squares biases too.

    Gal, Hron, Kendall 2017, section 3, for inverted scaling.
    """
    p, log_q = torch.sigmoid(logit), F.logsigmoid(-logit)
    kl = features * (p * F.logsigmoid(logit) + (1.0 - p) * log_q)
    return (
        kl if weight is None else kl + 0.5 * length**2 * weight.square().sum() * torch.exp(-log_q)
    )


def variational_dropout(
    x: Tensor, alpha: Tensor, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """Variational dropout, type A: x (1 + sqrt(alpha) e), e ~ N(0, 1) for each element, while
    training; x in evaluation.

    ``x`` [b, ...]; ``alpha`` >= 0 broadcasts to it: one number, or one for each unit. With alpha =
    p / (1 - p) it is Gaussian dropout at rate p. Where alpha is learned, add
    :func:`variational_divergence` to the loss.

    Kingma, Salimans, Welling 2015, "Variational dropout and the local reparameterization trick",
    section 3.1.
    """
    if not training or not x.numel():
        return x
    noise = 1.0 + alpha.to(reference.wide(x)).sqrt() * normal(tuple(x.shape), key, x)
    return (x * noise).to(x.dtype)


def variational_divergence(alpha: Tensor) -> Tensor:
    """KL of N(1, alpha) noise to a log-uniform prior, up to a constant, in nats for each element of
    ``alpha`` in (0, 1].

    -(log(alpha) / 2 + c1 alpha + c2 alpha^2 + c3 alpha^3), c = 1.16145124, -1.50204118, 0.58629921:
    within 0.038 nats of the exact KL. The prior is improper, and so is the posterior: Hron,
    Matthews and Ghahramani 2018, "Variational Bayesian dropout: pitfalls and fixes", so read it as
    a penalty, not as Bayesian inference.

    Kingma, Salimans, Welling 2015, section 3.3.
    """
    c1, c2, c3 = _KINGMA
    return -(0.5 * alpha.log() + alpha * (c1 + alpha * (c2 + alpha * c3)))


def sparse_divergence(log_alpha: Tensor) -> Tensor:
    """KL of weights N(w, alpha w^2) to a log-uniform prior, in nats for each element: 0 for alpha
    without end.

    k1 + log(1 + 1 / alpha) / 2 - k1 sigmoid(k2 + k3 log(alpha)), k = 0.63576, 1.8732, 1.48695:
    within 0.0095 nats of the exact KL for log(alpha) in [-8, 8]. The prior is improper: see
    :func:`variational_divergence`.

    Molchanov, Ashukha, Vetrov 2017, "Variational dropout sparsifies deep neural networks", equation
    14.
    """
    k1, k2, k3 = _MOLCHANOV
    return k1 + 0.5 * F.softplus(-log_alpha) - k1 * torch.sigmoid(k2 + k3 * log_alpha)


def information_dropout(
    x: Tensor, alpha: Tensor, training: bool = True, *, key: Keyed = None
) -> Tensor:
    """Information dropout: x exp(alpha e), e ~ N(0, 1) for each element, while training; x in
    evaluation.

    ``x`` [b, ...]; ``alpha`` >= 0 broadcasts to it, and may depend on it. The noise has median 1,
    but mean exp(alpha^2 / 2): evaluation, as in the authors' code, is the median and not the mean.

    Achille and Soatto 2018, "Information dropout: learning optimal representations through noisy
    computation".
    """
    if not training or not x.numel():
        return x
    noise = torch.exp(alpha.to(reference.wide(x)) * normal(tuple(x.shape), key, x))
    return (x * noise).to(x.dtype)


def information_divergence(alpha: Tensor, most: float) -> Tensor:
    """KL of :func:`information_dropout` after a ReLU to a log-uniform prior: -log(alpha / ``most``)
    >= 0 for each element.

    ``most``: the largest alpha that there can be, where the KL is 0. Achille and Soatto 2018, up to
    the constant, and without the prior's point mass at 0, as in the authors' code.
    """
    return math.log(most) - alpha.log()


def warmth(temperature: float) -> float:
    """The temperature, checked."""
    if not temperature > 0:
        raise InputError(
            f"temperature has to be above 0, but got {temperature}; 0.1 is usual, and dropout itself is at 0"
        )
    return temperature
