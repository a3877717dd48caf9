"""Information dropout: noise that is a learned function of the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError
from ..engines.torch import reference
from .learned import Learned
from .module import check_module

_MIN_ALPHA = 0.001  # as in the code of the authors


class InformationDropout(Learned, nn.Module):
    """Information dropout: a second module computes how much noise each activation gets.

    Input: that of ``module``, the examples first. Output: f(x) exp(alpha e) while training, e ~
    N(0, 1), and f(x) in evaluation, with alpha = 0.001 + ``max_alpha`` sigmoid(``noise``(x)).
    :meth:`divergence` is the KL term of the last batch that was drawn: the sum over activations,
    averaged over examples. Add it to the mean loss times beta, 3 in the paper.

    Args:
        module: f, including its ReLU.
        noise: Computes the strength of the noise, of the shape of the output of f, such as a second
            convolution.
        max_alpha: The largest strength, above 0; the authors use 0.7 on CIFAR-10.

    Raises:
        InputError: Where ``max_alpha`` is not above 0; in the forward pass where the two modules
            differ in the shape of their outputs.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> f = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        >>> layer = tnn.InformationDropout(f, nn.Linear(4, 8))
        >>> layer(torch.ones(2, 4)).shape, layer.divergence().shape
        (torch.Size([2, 8]), torch.Size([]))

    Reference:
        Achille and Soatto 2018, "Information dropout: learning optimal representations through
        noisy computation"; :func:`thinned.functional.information_dropout`.
    """

    divergence_is_per_example = True

    def __init__(self, module: nn.Module, noise: nn.Module, max_alpha: float = 0.7) -> None:
        super().__init__()
        check_module(self, "module", module)
        check_module(self, "noise", noise)
        self.module, self.noise = module, noise
        self.max_alpha = functional.learned.check_max_alpha(max_alpha)
        self._last_divergence: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # the divergence is part of an autograd graph, which cannot be copied
        return {**self.__dict__, "_last_divergence": None}

    def divergence(self) -> Tensor:
        """Return the KL term of the last batch that was drawn.

        Returns:
            The KL term in nats, averaged over the examples: a tensor without axes.

        Raises:
            InputError: Before the first forward pass in training.
        """
        if self._last_divergence is None:
            raise InputError(
                "information dropout has a divergence after a forward pass in training; call the "
                "model first"
            )
        return self._last_divergence

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        if self.mode() != "sample":
            return y
        alpha = _MIN_ALPHA + self.max_alpha * torch.sigmoid(self.noise(x).to(reference.wide(y)))
        if alpha.shape != y.shape:
            raise InputError(
                f"the noise has to be of shape {list(y.shape)} as the activations, but got "
                f"{list(alpha.shape)}"
            )
        divergences = functional.information_divergence(alpha, _MIN_ALPHA + self.max_alpha)
        self._last_divergence = divergences.sum() / max(y.shape[0], 1)
        return functional.information_dropout(y, alpha, key=self.call_key())

    def extra_repr(self) -> str:
        return f"max_alpha={self.max_alpha}"
