"""Layers on sequences of tokens."""

from __future__ import annotations

from .. import functional, presets
from .._errors import flag, whole
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
        >>> import thinned.nn as tnn
        >>> tnn.TokenDropout(0.1)
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
    """PatchDropout: a vision transformer sees fewer patches while training, in a shorter sequence.

    Input: tokens [b, T, ...], with positions already added. Output: [b, kept, ...] in the order of
    the input, with kept = prefix + int((1 - p) (T - prefix)); every subset is equally likely, and
    each example has its own. Nothing is scaled. In evaluation the output is the input. The rate
    sets the shape of the result, so a compiled graph is compiled again when a schedule moves it.

    Args:
        p: The part of the patches to drop, in [0, 1], or a schedule of it. A rate that leaves no
            patch raises an error in the forward pass.
        prefix: The number of first tokens that are always kept, such as the class token.
        indices: Whether to return also the positions of the kept tokens, int64 [b, kept].

    Raises:
        InputError: Where ``p`` is out of range, or ``prefix`` is not a whole number of at least 0.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> tnn.PatchDropout(0.5)(torch.ones(2, 9, 4)).shape
        torch.Size([2, 5, 4])

    Reference:
        Liu, Matsoukas, Strand, Azizpour, Smith 2023, "PatchDropout: economizing vision transformers
        using patch dropout"; :func:`thinned.functional.patch_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, prefix: int = 1, indices: bool = False) -> None:
        super().__init__(
            functional.patch_dropout,
            p=p,
            rate_sets_shape=True,
            prefix=whole(prefix, "prefix", 0),
            indices=flag(indices, "indices"),
        )


class HiddenCut(FunctionLayer):
    """HiddenCut: zeroes one span of neighboring tokens of each example; nothing is scaled.

    Input: hidden states [b, T, ...]. Output: the same shape; the input itself in evaluation. The
    span is round(p T) tokens long, and its start is uniform over the places where it fits.

    Args:
        p: The part of the tokens in the span, in [0, 1], or a schedule of it; 0.1 in the paper.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> int((tnn.HiddenCut(0.3)(torch.ones(1, 10, 4)) == 0).sum())
        12

    Reference:
        Chen, Shen, Chen, Yang 2021, "HiddenCut: simple data augmentation for natural language
        understanding with better generalizability"; :func:`thinned.functional.hidden_cut`.
    """

    def __init__(self, p: float | Schedule = 0.1) -> None:
        super().__init__(functional.hidden_cut, p=p)
