"""Layers on sequences of tokens."""

from __future__ import annotations

from .. import functional, presets
from .._errors import whole
from ..algebra.schedule import Schedule
from ..engines.torch.dispatch import Impl
from .method import FunctionLayer
from .spec_layer import SpecLayer


class TokenDropout(SpecLayer):
    """Token dropout: zeroes the whole vector of a token; the sequence keeps its length.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.
        layout: The input's axes by name: None reads [b, t, d]; ``"t b d"`` is time first.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> TokenDropout(0.1)
        TokenDropout(p=0.1, inplace=False)

    Reference:
        Sennrich, Haddow, Birch 2016, "Edinburgh neural machine translation systems for WMT 16";
        :func:`thinned.presets.token_dropout`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        inplace: bool = False,
        *,
        layout: str | None = None,
        impl: Impl | None = None,
    ) -> None:
        super().__init__(presets.token_dropout, p, inplace, layout=layout, impl=impl)


class PatchDropout(FunctionLayer):
    """Liu et al. 2023: :func:`thinned.functional.patch_dropout`. A schedule compiles anew: the rate
    decides the length.
    """

    def __init__(self, p: float | Schedule = 0.5, prefix: int = 1, indices: bool = False) -> None:
        super().__init__(
            functional.patch_dropout,
            p=p,
            shapes=True,
            prefix=whole(prefix, "prefix", 0),
            indices=indices,
        )


class HiddenCut(FunctionLayer):
    """Chen et al. 2021: :func:`thinned.functional.hidden_cut`."""

    def __init__(self, p: float | Schedule = 0.1) -> None:
        super().__init__(functional.hidden_cut, p=p)
