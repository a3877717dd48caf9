"""Dropout with learned noise, and the KL terms that go with it."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import InputError, choice, flag, real
from ..engines.torch import reference
from .core import KeyLike, normal, uniform
from .inputs import dense_inputs

Per = Literal["element", "channel"]
LAYOUTS = {"element": ("b *", "b *"), "channel": ("b c", "b c *")}
_KINGMA = (1.16145124, -1.50204118, 0.58629921)
_MOLCHANOV = (0.63576, 1.8732, 1.48695)


@dense_inputs
def concrete_dropout(
    x: Tensor,
    logit: Tensor,
    temperature: float = 0.1,
    training: bool = True,
    *,
    per: Per = "element",
    unbiased: bool = False,
    key: KeyLike = None,
) -> Tensor:
    """Concrete dropout: a relaxed Bernoulli mask, which gives the rate a gradient.

    With the rate p = sigmoid(``logit``), x (1 - z) / (1 - p) while training, where z =
    sigmoid((logit p + logit u) / t) and u ~ U(0, 1); ``x`` in evaluation. As published, this does
    not keep the mean: E[1 - z] is not 1 - p but :func:`concrete_mean`. At p = 0.1 the mean of the
    output is 0.13 % below that of evaluation for t = 0.1, and 5.0 % below it for t = 2/3.

    Args:
        x: [b, ...].
        logit: The logit of the rate, a tensor without axes.
        temperature: t, above 0; at 0 this would be dropout. The authors use 0.1 on dense layers and
            2/3 on feature maps.
        training: Whether to draw; False computes the evaluation.
        per: "element" draws one u for each element, "channel" one for each example and channel of
            [b, c, ...].
        unbiased: Whether to divide by :func:`concrete_mean` instead of 1 - p, which keeps the mean.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        InputError: Where ``per`` is unknown or ``temperature`` is not above 0.

    Example:
        >>> from thinned import Key
        >>> concrete_dropout(torch.ones(1, 4), torch.tensor(0.0), key=Key(seed=1))
        tensor([[1.9998, 1.9849, 0.0262, 2.0000]])

    Reference:
        Gal, Hron, Kendall 2017, "Concrete dropout", section 3.
    """
    choice(per, "per", LAYOUTS)
    flag(unbiased, "unbiased")
    check_temperature(temperature)
    if not training or not x.numel():
        return x
    wide = reference.wide(x)
    logit = logit.to(wide)
    u = uniform(tuple(x.shape), key, x, *LAYOUTS[per])
    kept = torch.sigmoid(-(logit + u.log() - torch.log1p(-u)) / temperature)
    mean = concrete_mean(logit, temperature) if unbiased else torch.sigmoid(-logit)
    return (x.to(wide) * (kept / mean)).to(x.dtype)


@dense_inputs
def concrete_mean(logit: Tensor, temperature: float = 0.1) -> Tensor:
    """E[1 - z] of :func:`concrete_dropout`, for each element of ``logit``.

    1 - p + t int_0^inf sigmoid(-s) (f(logit - t s) - f(logit + t s)) ds, where f = sigmoid' is the
    logistic density, by the double-exponential rule: differentiable, and accurate to about 1e-8 for
    t up to 2. It equals 1 - p only at p = 1/2.

    Args:
        logit: The logits of the rates, any shape.
        temperature: t, above 0.

    Returns:
        A tensor of the shape and dtype of ``logit``.

    Raises:
        InputError: Where ``temperature`` is not above 0.

    Example:
        >>> concrete_mean(torch.tensor([-2.0, 0.0]), temperature=2 / 3)
        tensor([0.8331, 0.5000])

    Reference:
        Gal, Hron, Kendall 2017, "Concrete dropout", for the distribution of z.
    """
    check_temperature(temperature)
    nodes = torch.linspace(-3.5, 3.8, 96, dtype=torch.float64, device=logit.device)
    s = torch.exp(nodes - torch.exp(-nodes))
    weights = s * (1.0 + torch.exp(-nodes)) * (7.3 / 95) * temperature * torch.sigmoid(-s)
    a = logit.double().unsqueeze(-1)
    low, high = a - temperature * s, a + temperature * s
    curvature = torch.sigmoid(low) * torch.sigmoid(-low) - torch.sigmoid(high) * torch.sigmoid(
        -high
    )
    return (torch.sigmoid(-a.squeeze(-1)) + (weights * curvature).sum(-1)).to(logit.dtype)


@dense_inputs
def concrete_divergence(
    logit: Tensor, features: int, weight: Tensor | None = None, length: float = 1.0
) -> Tensor:
    """The KL term of concrete dropout in nats, up to a constant.

    K (p log p + q log q) + length^2 / (2 q) sum weight^2, with p = sigmoid(``logit``), q = 1 - p
    and K = ``features``. Divide it by the number of training examples and add it to the mean
    negative log-likelihood. The code of the authors adds twice this for regression, to twice the
    log-likelihood, and squares biases too.

    Args:
        logit: The logit of the rate, a tensor without axes.
        features: K, the number of inputs (or channels) that have a draw of their own.
        weight: [out, K, ...], the weights that the noisy input is multiplied by; None leaves the
            second term out.
        length: The length scale of the prior.

    Returns:
        A tensor without axes.

    Example:
        >>> concrete_divergence(torch.tensor(0.0), features=10)
        tensor(-6.9315)

    Reference:
        Gal, Hron, Kendall 2017, "Concrete dropout", section 3, for inverted scaling.
    """
    p, log_q = torch.sigmoid(logit), F.logsigmoid(-logit)
    kl = features * (p * F.logsigmoid(logit) + (1.0 - p) * log_q)
    return (
        kl if weight is None else kl + 0.5 * length**2 * weight.square().sum() * torch.exp(-log_q)
    )


@dense_inputs
def variational_dropout(
    x: Tensor, alpha: Tensor, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Variational dropout, type A: multiplies each element by Gaussian noise of learned variance.

    x (1 + sqrt(alpha) e) while training, with e ~ N(0, 1) for each element; ``x`` in evaluation.
    With alpha = p / (1 - p) it is Gaussian dropout at rate p. Where ``alpha`` is learned, add
    :func:`variational_divergence` to the loss.

    Args:
        x: [b, ...].
        alpha: The variance of the noise, at least 0; broadcasts to ``x``: one number, or one for
            each unit.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Example:
        >>> from thinned import Key
        >>> variational_dropout(torch.ones(1, 4), torch.tensor(0.25), key=Key(seed=1))
        tensor([[0.4165, 1.5453, 1.2849, 1.4110]])

    Reference:
        Kingma, Salimans, Welling 2015, "Variational dropout and the local reparameterization
        trick", section 3.1.
    """
    if not training or not x.numel():
        return x
    noise = 1.0 + alpha.to(reference.wide(x)).sqrt() * normal(tuple(x.shape), key, x)
    return (x * noise).to(x.dtype)


@dense_inputs
def variational_divergence(alpha: Tensor) -> Tensor:
    """The KL of N(1, alpha) noise to a log-uniform prior, up to a constant, for each element.

    -(log(alpha) / 2 + c1 alpha + c2 alpha^2 + c3 alpha^3) with c = 1.16145124, -1.50204118,
    0.58629921: within 0.038 nats of the exact KL. The prior is improper, and so is the posterior
    (Hron, Matthews and Ghahramani 2018, "Variational Bayesian dropout: pitfalls and fixes"), so
    read it as a penalty, not as Bayesian inference.

    Args:
        alpha: The variances of the noise, in (0, 1], any shape.

    Returns:
        The KL in nats, of the shape of ``alpha``.

    Example:
        >>> variational_divergence(torch.tensor([0.1, 1.0]))
        tensor([ 1.0496, -0.2457])

    Reference:
        Kingma, Salimans, Welling 2015, "Variational dropout and the local reparameterization
        trick", section 3.3.
    """
    c1, c2, c3 = _KINGMA
    return -(0.5 * alpha.log() + alpha * (c1 + alpha * (c2 + alpha * c3)))


@dense_inputs
def sparse_divergence(log_alpha: Tensor) -> Tensor:
    """The KL of weights N(w, alpha w^2) to a log-uniform prior, for each element.

    k1 + log(1 + 1 / alpha) / 2 - k1 sigmoid(k2 + k3 log(alpha)) with k = 0.63576, 1.8732, 1.48695:
    within 0.0095 nats of the exact KL for log(alpha) in [-8, 8], and 0 in the limit of infinite
    alpha. The prior is improper: see :func:`variational_divergence`.

    Args:
        log_alpha: log(alpha), any shape.

    Returns:
        The KL in nats, of the shape of ``log_alpha``.

    Example:
        >>> sparse_divergence(torch.tensor([-3.0, 0.0, 3.0]))
        tensor([2.1156, 0.4312, 0.0254])

    Reference:
        Molchanov, Ashukha, Vetrov 2017, "Variational dropout sparsifies deep neural networks",
        equation 14.
    """
    k1, k2, k3 = _MOLCHANOV
    return k1 + 0.5 * F.softplus(-log_alpha) - k1 * torch.sigmoid(k2 + k3 * log_alpha)


@dense_inputs
def information_dropout(
    x: Tensor, alpha: Tensor, training: bool = True, *, key: KeyLike = None
) -> Tensor:
    """Information dropout: multiplies each element by log-normal noise of learned strength.

    x exp(alpha e) while training, with e ~ N(0, 1) for each element; ``x`` in evaluation. The noise
    has median 1 but mean exp(alpha^2 / 2): evaluation is the median and not the mean, as in the
    code of the authors.

    Args:
        x: [b, ...].
        alpha: The standard deviation of the logarithm of the noise, at least 0; broadcasts to ``x``
            and may be a function of it.
        training: Whether to draw; False computes the evaluation.
        key: The random key; equal keys draw equal noise. None takes 64 bits of torch's generator.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Example:
        >>> from thinned import Key
        >>> information_dropout(torch.ones(1, 4), torch.tensor(0.5), key=Key(seed=1))
        tensor([[0.5580, 1.7252, 1.3296, 1.5083]])

    Reference:
        Achille and Soatto 2018, "Information dropout: learning optimal representations through
        noisy computation".
    """
    if not training or not x.numel():
        return x
    noise = torch.exp(alpha.to(reference.wide(x)) * normal(tuple(x.shape), key, x))
    return (x * noise).to(x.dtype)


@dense_inputs
def information_divergence(alpha: Tensor, max_alpha: float) -> Tensor:
    """The KL of :func:`information_dropout` after a ReLU to a log-uniform prior, for each element.

    -log(alpha / max_alpha), which is at least 0, up to the constant of the paper. The probability
    mass of the prior at 0 is left out, as in the code of the authors.

    Args:
        alpha: The strengths of the noise, above 0, any shape.
        max_alpha: The largest possible alpha, where the KL is 0.

    Returns:
        The KL in nats, of the shape of ``alpha``.

    Raises:
        InputError: Where ``max_alpha`` is not above 0.

    Example:
        >>> information_divergence(torch.tensor([0.07, 0.35]), max_alpha=0.7)
        tensor([2.3026, 0.6931])

    Reference:
        Achille and Soatto 2018, "Information dropout: learning optimal representations through
        noisy computation".
    """
    return math.log(check_max_alpha(max_alpha)) - alpha.log()


def check_max_alpha(max_alpha: float) -> float:
    """Return ``max_alpha`` as a float, or raise unless it is above 0."""
    value = real(max_alpha, "max_alpha")
    if not value > 0:
        raise InputError(f"max_alpha has to be above 0, but got {max_alpha}; 0.7 is usual")
    return value


def check_temperature(temperature: float) -> float:
    """Return ``temperature``, or raise unless it is above 0."""
    value = real(temperature, "temperature")
    if not value > 0:
        raise InputError(
            f"temperature has to be above 0, but got {temperature}; 0.1 is usual, and 0 would be "
            "dropout"
        )
    return value
