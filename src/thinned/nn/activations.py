"""Hosts on activations whose draw depends on them, or that draw nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError, probability, real, unknown
from ..algebra.schedule import Schedule
from .method import FunctionLayer
from .module import DropoutModule, RatedModule


class Jumpout(FunctionLayer):
    """:func:`thinned.functional.jumpout`, after a ReLU."""

    def __init__(
        self,
        sigma: float | Schedule = 0.05,
        least: float = 0.0,
        most: float = 0.6,
        power: float = 0.75,
    ) -> None:
        off = {"least": 0.0} if least else None
        super().__init__(
            functional.jumpout, "sigma", off=off, sigma=sigma, least=least, most=most, power=power
        )


class Standout(DropoutModule, nn.Module):
    """:func:`thinned.functional.standout` of ``module``'s result: ``layer(x)`` is its activation,
    thinned.

    ``module``: what gives the pre-activations, such as a Linear or a convolution. ``activation``
    follows it inside the layer, because the same pre-activation decides what is kept.
    """

    def __init__(
        self,
        module: nn.Module,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        if not callable(activation):
            raise InputError(
                f"activation has to be a function, such as torch.relu, but got {activation!r}"
            )
        self.module, self.activation, self.alpha, self.beta = (
            module,
            activation,
            real(alpha, "alpha"),
            real(beta, "beta"),
        )

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
    """Dropout on the inputs of a linear layer, integrated out instead of drawn:
    :func:`thinned.functional.fast_dropout`.

    ``layer(x)`` takes a tensor [b, ..., in], or the pair that another such layer gives, and gives
    the pair (mean, variance) of the activation, [b, ..., out] each: exact sums, read as Gaussian,
    then the moments of ``activation`` ("relu", or None for the last layer). Train on the mean, or
    by :func:`thinned.functional.sigmoid_mean` of the pair. In evaluation the mean is the plain
    layer's and the variance 0. ``p`` in [0, 1); 0.5 is usual.

    Wang and Manning 2013, "Fast dropout training". It draws nothing, so a key changes nothing.
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
        self.start(p)

    @property
    def p(self) -> float:
        """The rate of dropping an input, in [0, 1)."""
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
