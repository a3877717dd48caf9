"""Points that drop the branch of a residual block."""

from __future__ import annotations

from typing import Literal

from .._errors import probability, unknown, whole
from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.scale import Classic, Inverted, Scale, Unscaled


def drop_path(p: float = 0.1, scale: Literal["inverted", "unscaled"] = "inverted") -> Drop:
    """Drop path: the whole residual branch of an example falls, and only its skip connection
    remains.

    x + m F(x) / (1 - p) while training, with one coin m for each example; x + F(x) in evaluation.
    Put it on the branch, before the addition. ``p`` in [0, 1], 0.1 to 0.5 in the deepest block,
    less before it (:func:`linear_rates`). ``scale="unscaled"`` leaves out the division, as
    timm's flag does: training and evaluation then differ in mean, on purpose. What EfficientNet's
    code calls drop_connect is this.

    >>> drop_path(0.2).per
    'b'

    Larsson, Maire, Shakhnarovich 2017, "FractalNet"; the form for each example is timm's and
    torchvision's "row" mode.
    """
    scales: dict[str, Scale] = {"inverted": Inverted(), "unscaled": Unscaled()}
    if scale not in scales:
        raise unknown("scale", scale, scales)
    return Drop(Bernoulli(p), per="b", scale=scales[scale], name="drop_path")


def stochastic_depth(p: float = 0.5, per: Literal["example", "batch"] = "example") -> Drop:
    """Stochastic depth: residual branches fall while training, and are scaled by 1 - p in
    evaluation.

    x + m F(x) while training, x + (1 - p) F(x) in evaluation (classic scaling, as in the paper).
    ``per="batch"`` is the paper's: one coin for the whole minibatch, so that the branch need not be
    computed. ``p`` of the last block is 0.5 there, and grows linearly with depth:
    :func:`linear_rates`.

    >>> stochastic_depth(0.5, "batch").per
    ''

    Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep networks with stochastic depth", equations 2 and
    5.
    """
    if per not in ("example", "batch"):
        raise unknown("per", per, ("example", "batch"))
    return Drop(
        Bernoulli(p), per="b" if per == "example" else "", scale=Classic(), name="stochastic_depth"
    )


def linear_rates(blocks: int, last: float = 0.5) -> tuple[float, ...]:
    """The rate of each of ``blocks`` residual blocks: block l of L falls with l / L * ``last``
    (Huang et al. 2016, eq. 4).

    >>> linear_rates(4, 0.2)
    (0.05, 0.1, 0.15000000000000002, 0.2)
    """
    blocks = whole(blocks, "blocks", 1)
    last = probability(last, "last")
    return tuple(last * (block + 1) / blocks for block in range(blocks))
