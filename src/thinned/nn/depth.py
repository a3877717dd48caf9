"""Layers that drop the branch of a residual block."""

from __future__ import annotations

from typing import Literal

from .. import presets
from ..algebra.schedule import Schedule
from .spec_layer import SpecLayer


class DropPath(SpecLayer):
    """Drop path: drops the whole residual branch of an example; only its skip connection remains.

    Use it on the branch, before the addition: ``x + drop_path(branch(x))``.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.1 to 0.5 in the deepest
            block, less before it (:func:`thinned.presets.linear_rates`).
        inplace: Whether to write the result into the input.
        scale: "inverted"; or "unscaled", which is timm's ``scale_by_keep=False``.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropPath(0.2)
        DropPath(p=0.2, inplace=False)

    Reference:
        Larsson, Maire, Shakhnarovich 2017, "FractalNet"; :func:`thinned.presets.drop_path`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        inplace: bool = False,
        *,
        scale: Literal["inverted", "unscaled"] = "inverted",
    ) -> None:
        super().__init__(presets.drop_path, p, inplace, scale=scale)


class StochasticDepth(SpecLayer):
    """Stochastic depth: drops residual branches while training and scales them by 1 - p in
    evaluation.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.5 in the paper's last
            block, less before it (:func:`thinned.presets.linear_rates`).
        per: "example" draws for each example, "batch" once for the whole minibatch, as the paper.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.StochasticDepth(0.5, per="batch")
        StochasticDepth(p=0.5, inplace=False, per='batch')

    Reference:
        Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", equations
        2 and 5; :func:`thinned.presets.stochastic_depth`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        per: Literal["example", "batch"] = "example",
        inplace: bool = False,
    ) -> None:
        super().__init__(presets.stochastic_depth, p, inplace, per=per)
