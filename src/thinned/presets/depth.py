"""Specs that drop the branch of a residual block."""

from __future__ import annotations

from typing import Literal

from .._errors import probability, unknown, whole
from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Classic, scale_of


def drop_path(p: float = 0.1, scale: Literal["inverted", "unscaled"] = "inverted") -> Drop:
    """Drop path: drops the whole residual branch of an example and keeps its skip connection.

    x + m F(x) / (1 - p) while training, with one Bernoulli draw m for each example; x + F(x) in
    evaluation. Apply it to the branch, before the addition. EfficientNet's code calls this method
    drop_connect.

    Args:
        p: The probability of dropping, in [0, 1]; 0.1 to 0.5 in the deepest block and less before
            it (:func:`linear_rates`).
        scale: "inverted", or "unscaled" to leave out the division, as a flag of timm does:
            training and evaluation then have different means, on purpose.

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range or unknown.

    Example:
        >>> drop_path(0.2).per
        'b'

    Reference:
        Larsson, Maire, Shakhnarovich 2017, "FractalNet: ultra-deep neural networks without
        residuals"; the form with one draw for each example is the "row" mode of timm and
        torchvision.
    """
    return Drop(
        Bernoulli(p), per="b", scale=scale_of(scale, ("inverted", "unscaled")), name="drop_path"
    )


def stochastic_depth(p: float = 0.5, per: Literal["example", "batch"] = "example") -> Drop:
    """Stochastic depth: drops residual branches, and scales them by 1 - p in evaluation.

    x + m F(x) while training and x + (1 - p) F(x) in evaluation: classic scaling, as in the paper.

    Args:
        p: The probability of dropping, in [0, 1]. In the paper it grows linearly with depth up to
            0.5 in the last block (:func:`linear_rates`).
        per: "example" draws for each example. "batch" is the form of the paper: one draw for the
            whole minibatch, so that the branch need not be computed.

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range or unknown.

    Example:
        >>> stochastic_depth(0.5, "batch").per
        ''

    Reference:
        Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", equations 2
        and 5.
    """
    if per not in ("example", "batch"):
        raise unknown("per", per, ("example", "batch"))
    return Drop(
        Bernoulli(p), per="b" if per == "example" else "", scale=Classic(), name="stochastic_depth"
    )


def linear_rates(blocks: int, last: float = 0.5) -> tuple[float, ...]:
    """Return the rate of each residual block where rates grow linearly with depth.

    Block l of L has the rate l / L * ``last``.

    Args:
        blocks: The number L of blocks, at least 1.
        last: The rate of the last block, in [0, 1].

    Returns:
        One rate for each block, from the first to the last.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> linear_rates(4, 0.2)
        (0.05, 0.1, 0.15000000000000002, 0.2)

    Reference:
        Huang et al. 2016, equation 4.
    """
    blocks = whole(blocks, "blocks", 1)
    last = probability(last, "last")
    return tuple(last * (block + 1) / blocks for block in range(blocks))
