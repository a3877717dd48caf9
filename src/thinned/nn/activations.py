"""Dropout layers that depend on activations: jumpout, standout and fast dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError, probability, real, unknown
from ..algebra.schedule import Schedule
from .method import FunctionLayer
from .module import DropoutModule, RatedModule, check_module


class Jumpout(FunctionLayer):
    """Jumpout: dropout after ReLU at a random rate, adapted to the fraction of active units.

    Input: [b, ...], the output of a ReLU. Output: the same shape; the input itself in evaluation.
    The rate min(``min_rate`` + |N(0, sigma^2)|, ``max_rate``) is drawn once for each call and
    divided by the fraction of the input above 0, up to ``max_rate``. At the resulting rate p'
    kept elements are multiplied by (1 - p')^-power.

    Args:
        sigma: The standard deviation of the rate, in [0, 1], or a schedule of it.
        min_rate: The smallest rate that is drawn; 0 <= min_rate <= max_rate.
        max_rate: The largest rate that is drawn or used, below 1.
        power: The exponent of the scale: 1 keeps the mean, 0.5 the variance, and 0.75 is the
            compromise of the paper.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Jumpout(0.1)
        Jumpout(sigma=0.1, min_rate=0.0, max_rate=0.6, power=0.75)

    Reference:
        Wang, Zhou, Bilmes 2019, "Jumpout: improved dropout for deep neural networks with ReLUs",
        algorithm 1; :func:`thinned.functional.jumpout`.
    """

    def __init__(
        self,
        sigma: float | Schedule = 0.05,
        min_rate: float = 0.0,
        max_rate: float = 0.6,
        power: float = 0.75,
    ) -> None:
        functional.activations.check_jumpout(min_rate, max_rate, power)
        super().__init__(
            functional.jumpout,
            "sigma",
            off_settings={"min_rate": 0.0} if min_rate else None,
            sigma=sigma,
            min_rate=min_rate,
            max_rate=max_rate,
            power=power,
        )


class Standout(DropoutModule, nn.Module):
    """Standout: keeps each unit with a probability that grows with its pre-activation.

    With h = module(x) it returns m f(h) while training, where m is 1 with probability
    sigmoid(alpha h + beta), and the mean sigmoid(alpha h + beta) f(h) in evaluation. Input and
    output: those of ``module``, the examples first.

    Args:
        module: Computes the pre-activations, such as a Linear or a convolution.
        activation: f, applied inside the layer, because the same pre-activation decides what is
            kept.
        alpha: The slope of the probabilities, any real number; at 0 the layer is classic dropout
            that keeps units with probability sigmoid(beta).
        beta: The offset of the probabilities, any real number; larger values keep more.

    Raises:
        InputError: Where ``activation`` is not callable, or a number is not finite.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> tnn.Standout(nn.Linear(4, 8))
        Standout(
          alpha=1.0, beta=0.0
          (module): Linear(in_features=4, out_features=8, bias=True)
        )

    Reference:
        Ba and Frey 2013, "Adaptive dropout for training deep neural networks", section 3;
        :func:`thinned.functional.standout`.
    """

    def __init__(
        self,
        module: nn.Module,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        check_module(self, "module", module)
        if not callable(activation):
            raise InputError(
                f"activation has to be a function, such as torch.relu, but got {activation!r}"
            )
        self.module, self.activation = module, activation
        self.alpha, self.beta = real(alpha, "alpha"), real(beta, "beta")

    def forward(self, x: Tensor) -> Tensor:
        mode = self.mode()
        h = self.module(x)
        if mode == "off" or not h.numel():
            return self.activation(h)
        key = self.call_key() if mode == "sample" else None
        return functional.standout(
            h, self.activation, self.alpha, self.beta, mode == "sample", key=key
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}"


class FastDropout(RatedModule, nn.Module):
    """Fast dropout: a linear layer that integrates the dropout of its inputs out, without draws.

    Input: a tensor [b, ..., in], or the pair that another such layer returns. Output: the pair
    (mean, variance) of the activation, [b, ..., out] each: exact sums, read as a Gaussian, then the
    moments of ``activation``. Train on the mean, or by :func:`thinned.functional.sigmoid_mean` of
    the pair. In evaluation the mean is the result of the linear layer and the variance is 0. It
    draws nothing, so a key changes nothing.

    Args:
        linear: A ``torch.nn.Linear``.
        p: The probability of dropping an input, in [0, 1), or a schedule of it; 0.5 is usual.
        activation: "relu", or None for the last layer.

    Raises:
        InputError: Where ``linear`` is another module, ``activation`` is unknown, or ``p`` is
            outside [0, 1).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> layer = tnn.FastDropout(nn.Linear(4, 8), 0.5, activation="relu")
        >>> mean, variance = layer(torch.ones(2, 4))
        >>> mean.shape, variance.shape
        (torch.Size([2, 8]), torch.Size([2, 8]))

    Reference:
        Wang and Manning 2013, "Fast dropout training"; :func:`thinned.functional.fast_dropout`.
    """

    def __init__(
        self,
        linear: nn.Linear,
        p: float | Schedule = 0.5,
        activation: Literal["relu"] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise InputError(
                f"FastDropout needs a torch.nn.Linear, but got {type(linear).__name__}"
            )
        if activation not in ("relu", None):
            raise unknown("activation", activation, ("relu",))
        self.linear, self.activation = linear, activation
        self.set_initial_rate(p)

    @property
    def p(self) -> float:
        """The probability of dropping an input, in [0, 1)."""
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        self._rate = probability(rate, below_one=True)

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        mean, var = (x, None) if isinstance(x, Tensor) else x
        if self.mode() != "sample":
            y = self.linear(mean)
            y = y if self.activation is None else torch.relu(y)
            return y, torch.zeros_like(y)
        mean, var = functional.fast_dropout(mean, self.linear.weight, self.linear.bias, self.p, var)
        return (mean, var) if self.activation is None else functional.rectified_moments(mean, var)

    def extra_repr(self) -> str:
        return f"p={self.p}, activation={self.activation}"
