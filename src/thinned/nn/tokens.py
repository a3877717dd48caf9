"""Layers of :mod:`thinned.functional.tokens`."""

from __future__ import annotations

from .. import functional
from .._errors import whole
from ..algebra.schedule import Schedule
from .method import MethodDropout


def PatchDropout(
    p: float | Schedule = 0.5, prefix: int = 1, indices: bool = False
) -> MethodDropout:
    """Liu et al. 2023: :func:`thinned.functional.patch_dropout`. A schedule compiles anew: the rate
    decides the length.
    """
    return MethodDropout(
        functional.patch_dropout,
        p=p,
        shapes=True,
        prefix=whole(prefix, "prefix", 0),
        indices=indices,
    )


def HiddenCut(p: float | Schedule = 0.1) -> MethodDropout:
    """Chen et al. 2021: :func:`thinned.functional.hidden_cut`."""
    return MethodDropout(functional.hidden_cut, p=p)
