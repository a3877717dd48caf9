"""Layouts with named axes, the axes along which a mask is shared, and blocks.

A layout names the axes of a tensor in order: ``"b c h w"``. ``*`` stands for any number of axes
(none included). ``b`` is the axis of the examples: along it, the sample ids of a key choose the
part of the mask that each example gets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

from .._errors import InputError

EXAMPLE = "b"


@final
@dataclass(frozen=True, slots=True)
class Block:
    """Drops contiguous blocks: each dropped seed drops ``size`` elements along the axes ``over``.

    It goes into the ``per`` of a :class:`Drop` with Bernoulli noise and the scale
    :class:`KeptFraction`.

    Args:
        over: The names of the axes along which a block extends, such as ``"*"``.
        size: The number of elements of a block along each axis of ``over``: one number for all,
            or one for each axis.
        per: The names of the axes along which seeds are drawn separately. Empty: every axis of
            the layout.

    Raises:
        InputError: Where an argument has the wrong type, or a size is below 1.

    Example:
        >>> from thinned.algebra import Bernoulli, Drop, KeptFraction, plan
        >>> drop = Drop(Bernoulli(0.1), per=Block("*", 7), of="b c *", scale=KeptFraction())
        >>> plan(drop, (32, 64, 14, 14)).mask_shape  # seeds stand only where a whole block fits
        (32, 64, 8, 8)

    Reference:
        Ghiasi, Lin, Le 2018, "DropBlock: a regularization method for convolutional networks".
    """

    over: str
    size: int | tuple[int, ...]
    per: str = ""

    def __post_init__(self) -> None:
        for name in ("over", "per"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise InputError(
                    f"{name} of a Block has to be a string of axis names, but got {value!r}; "
                    'write for example Block("*", 7)'
                )
        sizes = tuple(self.size) if isinstance(self.size, (tuple, list)) else (self.size,)
        if not sizes or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sizes):
            raise InputError(
                "block size has to be a whole number of at least 1 (or one for each axis), but got "
                f"{self.size!r}"
            )
        if not isinstance(self.size, int):
            object.__setattr__(self, "size", sizes)


Per: TypeAlias = str | Block


def axes(layout: str) -> tuple[str, ...]:
    """Return the names in a layout, or raise :class:`InputError` where it is malformed."""
    names = tuple(layout.split())
    if len(set(names)) != len(names) or not all(n == "*" or n.isidentifier() for n in names):
        raise InputError(
            "a layout has to be distinct axis names and at most one '*', such as 'b c *', but got "
            f"{layout!r}"
        )
    return names


def expand(layout: str, rank: int) -> tuple[str, ...]:
    """Return one name for each axis of a tensor of ``rank`` axes; ``*`` becomes ``*0 *1 ...``.

    >>> expand("b c *", 4)
    ('b', 'c', '*0', '*1')
    """
    names = axes(layout)
    if "*" not in names:
        if rank != len(names):
            raise InputError(
                f"layout {layout!r} needs a tensor of {len(names)} axes, but got one of {rank}"
            )
        return names
    extra = rank - (len(names) - 1)
    # A tensor shorter than its layout (a 0-d tensor under "b *") lacks the last named axes.
    if extra < 0:
        return tuple(n for n in names if n != "*")[:rank]
    at = names.index("*")
    return (*names[:at], *(f"*{i}" for i in range(extra)), *names[at + 1 :])


def chosen(names: str, of: str, rank: int) -> tuple[bool, ...]:
    """Return, for each axis of a tensor with the layout ``of``, whether ``names`` contains it."""
    wanted = set(axes(names))
    return tuple(("*" if name.startswith("*") else name) in wanted for name in expand(of, rank))


def check(per: Per, of: str) -> None:
    """Raise :class:`InputError` where ``per`` names an axis that the layout ``of`` lacks."""
    known = axes(of)
    parts = (per.over, per.per) if isinstance(per, Block) else (per,)
    for part in parts:
        missing = [n for n in axes(part) if n not in known]
        if missing:
            raise InputError(
                f"per names the axis {missing[0]!r}, which the layout {of!r} does not have; name "
                "all axes of the input in of"
            )


def block_sizes(block: Block, over: tuple[bool, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of a block along each axis of ``shape``, 1 where it does not extend.

    Raises :class:`InputError` where the block does not fit into the map.
    """
    count = sum(over)
    sizes = (block.size,) * count if isinstance(block.size, int) else block.size
    if len(sizes) != count:
        raise InputError(
            f"block size {block.size!r} has {len(sizes)} numbers, but the map has {count} axes"
        )
    rest = iter(sizes)
    extent = tuple(next(rest) if o else 1 for o in over)
    if any(e > n for e, n in zip(extent, shape, strict=True) if n):
        feature_map = " x ".join(str(n) for n, o in zip(shape, over, strict=True) if o)
        raise InputError(
            f"block size {block.size!r} is larger than the map of {feature_map}; use a block no "
            "larger than the shorter side of the map"
        )
    return extent


def seed_rate(p: float, extent: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """Return gamma, the rate of the seeds that drops about the fraction ``p`` of the map.

    gamma = p / prod(block) * prod(map) / prod(map - block + 1), with seeds only where a whole block
    fits (Ghiasi et al. 2018, equation 1).
    """
    gamma = p
    for size, n in zip(extent, shape, strict=True):
        if size > 1:
            gamma *= n / (size * (n - size + 1))
    return gamma


def covering(size: int, n: int) -> list[int]:
    """Return how many of the ``n - size + 1`` blocks cover each element of an axis of length n."""
    return [min(i, n - size) - max(0, i - size + 1) + 1 for i in range(n)]


def block_fraction(gamma: float, extent: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """Return the expected fraction of a map that seeds of rate ``gamma`` drop.

    It is 1 - mean over elements of (1 - gamma)^(number of seeds that cover the element). This is
    exact, and not equal to the nominal p: overlapping blocks drop less, such as 0.093 for p = 0.1,
    block 7 on a 14 x 14 map.
    """
    counts = {1: 1}  # number of covering seeds -> number of elements that have so many
    for size, n in zip(extent, shape, strict=True):
        if size > 1:
            along: dict[int, int] = {}
            for have, elements in counts.items():
                for c in covering(size, n):
                    along[have * c] = along.get(have * c, 0) + elements
            counts = along
    total = sum(counts.values())
    return 1.0 - math.fsum(n * (1.0 - gamma) ** c for c, n in counts.items()) / total
