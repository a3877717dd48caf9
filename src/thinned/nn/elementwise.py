"""Layers on single elements beyond :class:`Dropout`: Gaussian, uniform and batchwise noise."""

from __future__ import annotations

from typing import Literal

from .. import presets
from ..algebra.schedule import Schedule
from ..engines.torch.dispatch import Impl
from .spec_layer import SpecLayer


class GaussianDropout(SpecLayer):
    """Gaussian dropout: y = x * N(1, p / (1 - p)) while training, y = x in evaluation.

    Args:
        p: The rate of the dropout with the same mean and variance, in [0, 1), or a schedule of it.
        inplace: Whether to write the result into the input.
        layout: The input's axes by name where the examples are not first, such as ``"t b d"``.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule; rate 1 has no finite variance.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.GaussianDropout(0.5)
        GaussianDropout(p=0.5, inplace=False)

    Reference:
        Srivastava et al. 2014, section 10; :func:`thinned.presets.gaussian_dropout`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        inplace: bool = False,
        *,
        layout: str | None = None,
        impl: Impl | None = None,
    ) -> None:
        super().__init__(presets.gaussian_dropout, p, inplace, layout=layout, impl=impl)


class UniformDropout(SpecLayer):
    """Uniform dropout (Uout): y = x (1 + r), r ~ U(-beta, beta), while training; y = x in
    evaluation.

    Args:
        beta: Half the width of the noise, at least 0, or a schedule of it; 0.1 in the paper.
        inplace: Whether to write the result into the input.
        layout: The input's axes by name where the examples are not first, such as ``"t b d"``.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.UniformDropout(0.1)
        UniformDropout(beta=0.1, inplace=False)

    Reference:
        Li, Chen, Hu, Yang 2019, "Understanding the disharmony between dropout and batch
        normalization by variance shift"; :func:`thinned.presets.uniform_dropout`.
    """

    def __init__(
        self,
        beta: float | Schedule = 0.1,
        inplace: bool = False,
        *,
        layout: str | None = None,
        impl: Impl | None = None,
    ) -> None:
        super().__init__(presets.uniform_dropout, beta, inplace, layout=layout, impl=impl)

    def extra_repr(self) -> str:
        return super().extra_repr().replace("p=", "beta=", 1)


class BatchwiseDropout(SpecLayer):
    """Batchwise dropout: one mask for the whole minibatch, a draw for each unit.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.
        scale: "inverted" or "classic", the paper's.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.BatchwiseDropout(0.3)
        BatchwiseDropout(p=0.3, inplace=False)

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices"; :func:`thinned.presets.batchwise_dropout`, and :class:`Thinned`, which does
        not multiply what is dropped.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        inplace: bool = False,
        *,
        scale: Literal["inverted", "classic"] = "inverted",
        impl: Impl | None = None,
    ) -> None:
        super().__init__(presets.batchwise_dropout, p, inplace, impl=impl, scale=scale)
