"""Sparse variational dropout: learned noise on each weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError, real
from ..engines.torch import reference
from ..functional import core
from .learned import Learned
from .module import disable_fused_kernels
from .wrapper import call_with_weights


class SparseVariationalDropout(Learned, nn.Module):
    """Sparse variational dropout: each weight learns its noise, and noisy weights are removed.

    Input and output are those of ``module``. A weight is N(W, s^2) with alpha = s^2 / W^2 and
    log(alpha) within [-8, 8]. While training the output is drawn instead of the weights:
    N(layer(x), alpha W^2 * x^2 + 1e-8), where * is the same operation on squares, so each element
    of the output has noise of its own. Evaluation draws nothing and leaves out the weights with
    log(alpha) >= ``threshold``. ``weight`` and ``bias`` keep their names. ``log_variance`` is
    log(s^2), of the shape of the weight, initialized with -10.

    Add ``divergence() / examples`` to the mean loss, with a factor that grows from 0 to 1 over the
    first epochs, or too many weights are dropped at once. Hron, Matthews and Ghahramani 2018 show
    that the prior makes it a penalty rather than Bayesian inference.

    Args:
        module: A ``torch.nn.Linear`` or a convolution; its parameters are shared.
        threshold: The log(alpha) from which evaluation removes a weight: 3 in the paper, which is a
            rate of 0.95.

    Raises:
        InputError: Where ``module`` is another module, or ``threshold`` is not a finite number.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> _ = torch.manual_seed(0)
        >>> layer = tnn.SparseVariationalDropout(torch.nn.Linear(8, 4))
        >>> int((~layer.kept_weights()).sum())
        0

    Reference:
        Molchanov, Ashukha, Vetrov 2017, "Variational dropout sparsifies deep neural networks",
        section 4; :func:`thinned.functional.sparse_divergence`.
    """

    inner: nn.Module

    def __init__(self, module: nn.Module, threshold: float = 3.0) -> None:
        super().__init__()
        if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            raise InputError(
                "SparseVariationalDropout needs a torch.nn.Linear or a convolution, but got "
                f"{type(module).__name__}"
            )
        self.threshold = real(threshold, "threshold")
        # not registered as a child: its parameters are registered here
        self.__dict__["inner"] = module
        self.weight, self.bias = module.weight, module.bias
        self.log_variance = nn.Parameter(torch.full_like(module.weight, -10.0, requires_grad=True))
        self.training = module.training
        disable_fused_kernels(self)

    @property
    def log_alpha(self) -> Tensor:
        """log(s^2 / W^2) within [-8, 8], of the shape of the weight."""
        wide = reference.wide(self.weight)
        return (self.log_variance.to(wide) - (self.weight.to(wide).square() + 1e-8).log()).clamp(
            -8.0, 8.0
        )

    def divergence(self) -> Tensor:
        """Compute the KL term: the sum of :func:`thinned.functional.sparse_divergence`."""
        return functional.sparse_divergence(self.log_alpha).sum()

    def kept_weights(self) -> Tensor:
        """Return which weights evaluation uses.

        Returns:
            A bool tensor of the shape of the weight; ``(~kept_weights()).sum()`` are removed.
        """
        return self.log_alpha.detach() < self.threshold

    def forward(self, x: Tensor) -> Tensor:
        mode = self.mode()
        if mode == "mean":
            return self._run(x, self.weight * self.kept_weights(), self.bias)
        mean = self._run(x, self.weight, self.bias)
        if mode == "off":
            return mean
        wide = reference.wide(mean)
        variance = self.log_alpha.exp() * self.weight.to(wide).square()
        zeros = None if self.bias is None else torch.zeros_like(self.bias, dtype=wide)
        device = "cpu" if x.is_meta else x.device.type
        with torch.autocast(device, enabled=False):  # squares overflow in half precision
            var = self._run(x.to(wide).square(), variance, zeros)
        eps = core.normal(tuple(mean.shape), self.call_key(), mean)
        return mean + ((var.clamp_min(0.0) + 1e-8).sqrt() * eps).to(mean.dtype)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        replaced = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        y: Tensor = call_with_weights(self.inner, replaced, (x,))
        return y

    def extra_repr(self) -> str:
        return f"{type(self.inner).__name__}: {self.inner.extra_repr()}, threshold={self.threshold}"
