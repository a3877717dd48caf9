"""Layers that learn their rate: concrete dropout and variational dropout."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError, choice, flag, probability, whole
from ..functional import learned
from .learned import Learned


class ConcreteDropout(Learned, nn.Module):
    """Concrete dropout: learns its rate, one number p for the layer, through a relaxed mask.

    Input: [b, ..., features], or [b, features, ...] with ``per="channel"``. Output: the same shape;
    the input itself in evaluation. While training x (1 - z) / (1 - p) with z = sigmoid((logit p +
    logit u) / temperature), u ~ U(0, 1). The only parameter is ``logit``, that of p. Add
    :func:`thinned.nn.divergence` of the model to the loss, or the rate has no reason to grow.

    Args:
        features: The number of features, at least 1.
        p: The initial rate, in (0, 1); it can be read and set.
        temperature: The temperature of the relaxation, above 0: 0.1, or 2/3 as the authors use on
            feature maps.
        per: "element" draws for each element, "channel" for each example and channel.
        unbiased: Whether to keep the mean, which the published form does not.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.ConcreteDropout(64)
        ConcreteDropout(64, p=0.1, temperature=0.1, per=element, unbiased=False)

    Reference:
        Gal, Hron, Kendall 2017, "Concrete dropout", section 3;
        :func:`thinned.functional.concrete_dropout`.
    """

    def __init__(
        self,
        features: int,
        p: float = 0.1,
        temperature: float = 0.1,
        *,
        per: learned.Per = "element",
        unbiased: bool = False,
    ) -> None:
        super().__init__()
        choice(per, "per", learned.LAYOUTS)
        self.features = whole(features, "features", 1)
        self.temperature = learned.check_temperature(temperature)
        self.per, self.unbiased = per, flag(unbiased, "unbiased")
        self.logit = nn.Parameter(torch.zeros(()))
        self.p = probability(p)

    @property
    def p(self) -> float:
        """The rate, in (0, 1). It may be set."""
        return float(torch.sigmoid(self.logit.detach().double()))

    @p.setter
    def p(self, rate: float) -> None:
        _set_logit(self.logit, probability(rate), 1.0)

    def divergence(self, weight: Tensor | None = None, length: float = 1.0) -> Tensor:
        """Compute the KL term; see :func:`thinned.functional.concrete_divergence`.

        Args:
            weight: The weight of the layer that follows, [out, features, ...]; None leaves its term
                out.
            length: The length scale of the prior of the weight.

        Returns:
            The KL term in nats, a tensor without axes.
        """
        return functional.concrete_divergence(self.logit, self.features, weight, length)

    def forward(self, x: Tensor) -> Tensor:
        _check_features(x, 1 if self.per == "channel" else -1, self.features)
        if self.mode() != "sample":
            return x
        key = self.call_key()
        return functional.concrete_dropout(
            x, self.logit, self.temperature, per=self.per, unbiased=self.unbiased, key=key
        )

    def extra_repr(self) -> str:
        return (
            f"{self.features}, p={self.p:.4g}, temperature={self.temperature}, per={self.per}, "
            f"unbiased={self.unbiased}"
        )


class VariationalDropout(Learned, nn.Module):
    """Variational dropout: Gaussian dropout that learns its variance (type A of the paper).

    Input: [b, ..., features]. Output: the same shape; the input itself in evaluation. While
    training x (1 + sqrt(alpha) e), e ~ N(0, 1), with alpha = sigmoid(``logit``) below 1, as the
    approximation of the KL term needs. Add :func:`thinned.nn.divergence` of the model to the loss.
    Hron, Matthews and Ghahramani 2018 show that the prior makes it a penalty rather than Bayesian
    inference.

    Args:
        features: The number of features, at least 1.
        p: The initial rate alpha / (1 + alpha), in (0, 0.5); it can be read and set.
        per: "unit" learns an alpha for each unit, "layer" one for the layer.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.VariationalDropout(64)
        VariationalDropout(64, p=0.2, per=unit)

    Reference:
        Kingma, Salimans, Welling 2015, "Variational dropout and the local reparameterization
        trick", section 3.1; :func:`thinned.functional.variational_dropout`.
    """

    def __init__(
        self, features: int, p: float = 0.2, *, per: Literal["unit", "layer"] = "unit"
    ) -> None:
        super().__init__()
        choice(per, "per", ("unit", "layer"))
        self.features, self.per = whole(features, "features", 1), per
        self.logit = nn.Parameter(torch.zeros(self.features if per == "unit" else ()))
        self.p = probability(p)

    @property
    def alpha(self) -> Tensor:
        """The variance of the noise: [features], or without axes per layer."""
        return torch.sigmoid(self.logit)

    @property
    def p(self) -> float:
        """The mean of the rates alpha / (1 + alpha), in (0, 0.5). It may be set."""
        alpha = self.alpha.detach().double()
        return float((alpha / (1.0 + alpha)).mean())

    @p.setter
    def p(self, rate: float) -> None:
        _set_logit(self.logit, probability(rate), 0.5)

    def divergence(self) -> Tensor:
        """Compute the KL term: the sum of :func:`thinned.functional.variational_divergence`."""
        return functional.variational_divergence(self.alpha).expand(self.features).sum()

    def forward(self, x: Tensor) -> Tensor:
        _check_features(x, -1, self.features)
        if self.mode() != "sample":
            return x
        return functional.variational_dropout(x, self.alpha, key=self.call_key())

    def extra_repr(self) -> str:
        return f"{self.features}, p={self.p:.4g}, per={self.per}"


@torch.no_grad()
def _set_logit(logit: Tensor, rate: float, highest: float) -> None:
    """Set the logit of ``rate`` (``highest`` 1), or of its odds (``highest`` 1/2)."""
    if not 0.0 < rate < highest:
        raise InputError(
            f"a rate that is learned has to be above 0 and below {highest:g}, but got {rate}: its "
            "logit is finite there"
        )
    odds = math.log1p(-rate) if highest == 1.0 else math.log1p(-2.0 * rate)
    logit.fill_(math.log(rate) - odds)


def _check_features(x: Tensor, axis: int, features: int) -> None:
    if x.dim() < (2 if axis > 0 else 1) or x.shape[axis] != features:
        place = "1" if axis > 0 else "-1 (the last)"
        raise InputError(
            f"this layer was built for {features} features on axis {place}, but got an input of "
            f"{list(x.shape)}"
        )
