"""The layer that drops features of whole sequences."""

from __future__ import annotations

from .. import presets
from ..algebra.schedule import Schedule
from ..engines.torch.dispatch import Impl
from .spec_layer import SpecLayer


class LockedDropout(SpecLayer):
    """Locked (variational) dropout: one mask for each example and feature, for all time steps.

    Use it between recurrent layers and on their input and output.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.3 to 0.5 in the papers.
        inplace: Whether to write the result into the input.
        layout: The input's axes by name: None reads [b, t, d]; ``"t b d"`` is time first.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.LockedDropout(0.4, layout="t b d")
        LockedDropout(p=0.4, inplace=False, layout='t b d')

    Reference:
        Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
        neural networks"; Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language
        models"; :func:`thinned.presets.locked_dropout`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        inplace: bool = False,
        *,
        layout: str | None = None,
        impl: Impl | None = None,
    ) -> None:
        super().__init__(presets.locked_dropout, p, inplace, layout=layout, impl=impl)
