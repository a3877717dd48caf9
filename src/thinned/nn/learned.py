"""Hosts whose noise is learned."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError, probability, real, unknown, whole
from ..engines.torch import reference
from ..functional import core, learned
from .module import DropoutModule, disable_fused_kernels, dropout_modules

_LEAST = 0.001  # of information dropout's alpha, as in the authors' code


class Learned(DropoutModule, ABC):
    """A host whose noise is learned, at a price. Abstract."""

    @abstractmethod
    def divergence(self) -> Tensor:
        """The price in nats."""


def divergence(model: nn.Module, examples: int = 1) -> Tensor:
    """What the learned dropouts of ``model`` add to the mean loss of an example: a tensor of no
    axes, in nats.

    The divergences of rates and weights are paid once for the training set, so their sum is divided
    by ``examples``, the number of its examples; that of :class:`InformationDropout` is already a
    mean over the examples of the last batch.

    Raises :class:`thinned.InputError` where the model has no learned dropout.
    """
    found = [host for _, host in dropout_modules(model) if isinstance(host, Learned)]
    if not found:
        raise InputError(
            "this model has no dropout that is learned; build it with thinned.nn.ConcreteDropout or its like"
        )
    examples = whole(examples, "examples", 1)
    return torch.stack(
        [h.divergence() / (1 if isinstance(h, InformationDropout) else examples) for h in found]
    ).sum()


class ConcreteDropout(Learned, nn.Module):
    """Dropout that learns its rate: :func:`thinned.functional.concrete_dropout` of one p for the
    layer.

    ``features``: the size of the last axis of the input [b, ..., features], or with
    ``per="channel"`` of axis 1 of [b, features, ...]. ``p``: the first rate, in (0, 1); readable
    and settable. ``temperature``: 0.1, or 2/3 as the authors have it on maps. ``unbiased``: keep
    the mean, which the published form does not. One parameter, ``logit``.
    """

    def __init__(
        self,
        features: int,
        p: float = 0.1,
        temperature: float = 0.1,
        *,
        per: learned.Cells = "element",
        unbiased: bool = False,
    ) -> None:
        super().__init__()
        if per not in learned.LAYOUTS:
            raise unknown("per", per, learned.LAYOUTS)
        self.features = whole(features, "features", 1)
        self.temperature, self.per, self.unbiased = learned.warmth(temperature), per, unbiased
        self.logit = nn.Parameter(torch.zeros(()))
        self.p = p

    @property
    def p(self) -> float:
        """The rate, in (0, 1)."""
        return float(torch.sigmoid(self.logit.detach().double()))

    @p.setter
    def p(self, rate: float) -> None:
        _set(self.logit, probability(rate), 1.0)

    def divergence(self, weight: Tensor | None = None, length: float = 1.0) -> Tensor:
        """:func:`thinned.functional.concrete_divergence`: of the rate, and of the ``weight`` that
        follows if it is given.
        """
        return functional.concrete_divergence(self.logit, self.features, weight, length)

    def forward(self, x: Tensor) -> Tensor:
        _sized(x, 1 if self.per == "channel" else -1, self.features)
        if self.mode() != "sample":
            return x
        key = self.call_key()
        return functional.concrete_dropout(
            x, self.logit, self.temperature, per=self.per, unbiased=self.unbiased, key=key
        )

    def extra_repr(self) -> str:
        return f"{self.features}, p={self.p:.4g}, temperature={self.temperature}, per={self.per}, unbiased={self.unbiased}"


class VariationalDropout(Learned, nn.Module):
    """Gaussian dropout that learns its variance: :func:`thinned.functional.variational_dropout`,
    type A.

    ``features``: the size of the last axis of the input [b, ..., features]. ``per``: an alpha for
    each ``"unit"``, or one for the ``"layer"``. alpha = sigmoid(``logit``) < 1, as the
    approximation of the divergence needs. ``p``: the first rate alpha / (1 + alpha), in (0, 0.5).
    Hron et al. 2018 show that the prior makes it a penalty and no Bayesian inference.
    """

    def __init__(
        self, features: int, p: float = 0.2, *, per: Literal["unit", "layer"] = "unit"
    ) -> None:
        super().__init__()
        if per not in ("unit", "layer"):
            raise unknown("per", per, ("unit", "layer"))
        self.features, self.per = whole(features, "features", 1), per
        self.logit = nn.Parameter(torch.zeros(self.features if per == "unit" else ()))
        self.p = p

    @property
    def alpha(self) -> Tensor:
        """The variance of the noise."""
        return torch.sigmoid(self.logit)

    @property
    def p(self) -> float:
        """The mean of the rates alpha / (1 + alpha)."""
        alpha = self.alpha.detach().double()
        return float((alpha / (1.0 + alpha)).mean())

    @p.setter
    def p(self, rate: float) -> None:
        _set(self.logit, probability(rate), 0.5)

    def divergence(self) -> Tensor:
        """The sum over units of :func:`thinned.functional.variational_divergence`."""
        return functional.variational_divergence(self.alpha).expand(self.features).sum()

    def forward(self, x: Tensor) -> Tensor:
        _sized(x, -1, self.features)
        if self.mode() != "sample":
            return x
        return functional.variational_dropout(x, self.alpha, key=self.call_key())

    def extra_repr(self) -> str:
        return f"{self.features}, p={self.p:.4g}, per={self.per}"


class SparseVariationalDropout(Learned, nn.Module):
    """Sparse variational dropout: a linear layer or convolution whose weights each learn their
    noise, and fall out for good.

    Weights w ~ N(W, s^2), alpha = s^2 / W^2, log(alpha) within [-8, 8]. While training the output
    is drawn, not the weights: N(layer(x), alpha W^2 * x^2 + 1e-8), the same operation on squares,
    so each element of the output has noise of its own. Evaluation draws nothing and leaves out the
    weights where log(alpha) >= ``threshold``, 3 in the paper, which is a rate of 0.95. ``weight``
    and ``bias`` keep their names; ``log_variance`` log(s^2), of the weight's shape, starts at -10.

    Add ``divergence() / examples`` to the mean loss, from 0 up to its full weight over the first
    epochs, or too many weights fall at once. Hron et al. 2018 show that the prior makes it a
    penalty and no Bayesian inference.

    Molchanov, Ashukha, Vetrov 2017, "Variational dropout sparsifies deep neural networks", section
    4.
    """

    inner: nn.Module

    def __init__(self, module: nn.Module, threshold: float = 3.0) -> None:
        super().__init__()
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            raise InputError(
                f"SparseVariationalDropout needs a torch.nn.Linear or a convolution, but got {type(module).__name__}"
            )
        self.threshold = real(threshold, "threshold")
        self.__dict__["inner"] = module  # no child: its parameters are this layer's
        self.weight, self.bias = module.weight, module.bias
        self.log_variance = nn.Parameter(torch.full_like(module.weight, -10.0, requires_grad=True))
        self.training = module.training
        disable_fused_kernels(self)

    @property
    def log_alpha(self) -> Tensor:
        """log(s^2 / W^2) within [-8, 8], of the weight's shape."""
        wide = reference.wide(self.weight)
        return (self.log_variance.to(wide) - (self.weight.to(wide).square() + 1e-8).log()).clamp(
            -8.0, 8.0
        )

    def divergence(self) -> Tensor:
        """The sum over weights of :func:`thinned.functional.sparse_divergence`."""
        return functional.sparse_divergence(self.log_alpha).sum()

    def kept(self) -> Tensor:
        """Which weights evaluation uses: bool, of the weight's shape. ``(~kept()).sum()`` are
        removed.
        """
        return self.log_alpha.detach() < self.threshold

    def forward(self, x: Tensor) -> Tensor:
        mode = self.mode()
        if mode == "mean":
            return self._run(x, self.weight * self.kept(), self.bias)
        mean = self._run(x, self.weight, self.bias)
        if mode == "off":
            return mean
        wide = reference.wide(mean)
        variance = self.log_alpha.exp() * self.weight.to(wide).square()
        none = None if self.bias is None else torch.zeros_like(self.bias, dtype=wide)
        with torch.autocast(x.device.type, enabled=False):  # squares overflow in half precision
            var = self._run(x.to(wide).square(), variance, none)
        eps = core.normal(tuple(mean.shape), self.call_key(), mean)
        return mean + ((var.clamp_min(0.0) + 1e-8).sqrt() * eps).to(mean.dtype)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        given = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return torch.func.functional_call(self.inner, given, (x,))

    def extra_repr(self) -> str:
        return f"{type(self.inner).__name__}: {self.inner.extra_repr()}, threshold={self.threshold}"


class InformationDropout(Learned, nn.Module):
    """Information dropout: a module beside the layer says how much noise each activation gets.

    y = f(x) exp(alpha e), alpha = 0.001 + ``max_alpha`` sigmoid(``noise``(x));
    :func:`thinned.functional.information_dropout`. ``module``: f, up to and with its ReLU;
    ``noise``: of the same result's shape, such as a second convolution. The authors use
    ``max_alpha`` 0.7 on CIFAR-10. Evaluation is f(x).

    :meth:`divergence` is that of the last batch that was drawn: the sum over activations, the mean
    over examples. Add it to the mean loss times beta (3 there).

    Achille and Soatto 2018, "Information dropout: learning optimal representations through noisy
    computation".
    """

    def __init__(self, module: nn.Module, noise: nn.Module, max_alpha: float = 0.7) -> None:
        super().__init__()
        if not real(max_alpha, "max_alpha") > 0:
            raise InputError(f"max_alpha has to be above 0, but got {max_alpha}; 0.7 is usual")
        self.module, self.noise, self.max_alpha = module, noise, float(max_alpha)
        self._drawn: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_drawn": None}  # it hangs on a graph, which no copy can hold

    def divergence(self) -> Tensor:
        """Of the last batch that was drawn. Raises :class:`thinned.InputError` where there was
        none.
        """
        if self._drawn is None:
            raise InputError(
                "information dropout has a divergence after a forward pass in training; call the model first"
            )
        return self._drawn

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x)
        if self.mode() != "sample":
            return y
        alpha = _LEAST + self.max_alpha * torch.sigmoid(self.noise(x).to(reference.wide(y)))
        if alpha.shape != y.shape:
            raise InputError(
                f"the noise has to be of shape {list(y.shape)} as the activations, but got {list(alpha.shape)}"
            )
        self._drawn = functional.information_divergence(alpha, _LEAST + self.max_alpha).sum() / max(
            y.shape[0], 1
        )
        return functional.information_dropout(y, alpha, key=self.call_key())

    def extra_repr(self) -> str:
        return f"max_alpha={self.max_alpha}"


@torch.no_grad()
def _set(logit: Tensor, rate: float, most: float) -> None:
    """Write the ``logit`` whose sigmoid is 0 at rate 0 and 1 at the rate ``most``, 1 (the rate) or
    1/2 (its odds).
    """
    if not 0.0 < rate < most:
        raise InputError(
            f"a rate that is learned has to be above 0 and below {most:g}, but got {rate}: its logit is finite there"
        )
    logit.fill_(math.log(rate) - (math.log1p(-rate) if most == 1.0 else math.log1p(-2.0 * rate)))


def _sized(x: Tensor, axis: int, features: int) -> None:
    if x.dim() < (2 if axis > 0 else 1) or x.shape[axis] != features:
        place = "1" if axis > 0 else "-1 (the last)"
        raise InputError(
            f"this layer was built for {features} features on axis {place}, but got an input of {list(x.shape)}"
        )
