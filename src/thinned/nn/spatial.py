"""Layers that drop whole channels, or blocks of a feature map."""

from __future__ import annotations

from typing import Literal

from .. import presets
from ..algebra.schedule import Schedule
from ..engines.torch.dispatch import Impl
from .spec_layer import SpecLayer


class SpatialDropout(SpecLayer):
    """SpatialDropout: drops whole channels of [b, c, ...], for any number of spatial axes.

    torch calls it Dropout1d, Dropout2d and Dropout3d, by rank.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; typically 0.1 to 0.5.
        inplace: Whether to write the result into the input.
        scale: "inverted" or "classic".
        layout: The input's axes by name where examples and channels are not first, such as
            ``"b h w c"`` or ``"t b c"``.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.SpatialDropout(0.2)
        SpatialDropout(p=0.2, inplace=False)

    Reference:
        Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using
        convolutional networks"; :func:`thinned.presets.spatial_dropout`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        inplace: bool = False,
        *,
        scale: Literal["inverted", "classic"] = "inverted",
        layout: str | None = None,
        impl: Impl | None = None,
    ) -> None:
        super().__init__(presets.spatial_dropout, p, inplace, layout=layout, impl=impl, scale=scale)


class DropBlock(SpecLayer):
    """DropBlock: drops contiguous blocks of each channel's map, for any number of spatial axes.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.1 in the paper, reached
            by a linear ramp.
        block_size: The edge of a block, in elements, for all spatial axes or one for each.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropBlock(0.1, 5)
        DropBlock(p=0.1, inplace=False, block_size=5)

    Reference:
        Ghiasi, Lin, Le 2018, "DropBlock: a regularization method for convolutional networks",
        equation 1 and algorithm 1; :func:`thinned.presets.drop_block`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        block_size: int | tuple[int, ...] = 7,
        inplace: bool = False,
    ) -> None:
        super().__init__(presets.drop_block, p, inplace, block_size=block_size)


class DropBlock1d(SpecLayer):
    """:class:`DropBlock` on [n, c, l] or [c, l].

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        block_size: The length of a block, in elements.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.
        RuntimeError: For inputs of another rank.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropBlock1d(0.1, 5)
        DropBlock1d(p=0.1, inplace=False, block_size=5)

    Reference:
        Ghiasi et al. 2018; :func:`thinned.presets.drop_block`.
    """

    def __init__(
        self, p: float | Schedule = 0.1, block_size: int = 7, inplace: bool = False
    ) -> None:
        super().__init__(presets.drop_block, p, inplace, dims=1, block_size=block_size)


class DropBlock2d(SpecLayer):
    """:class:`DropBlock` on [n, c, h, w].

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        block_size: The edge of a block, in elements, or (height, width).
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.
        RuntimeError: For inputs of another rank.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropBlock2d(0.1, (3, 5))
        DropBlock2d(p=0.1, inplace=False, block_size=(3, 5))

    Reference:
        Ghiasi et al. 2018; :func:`thinned.presets.drop_block`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        block_size: int | tuple[int, int] = 7,
        inplace: bool = False,
    ) -> None:
        super().__init__(presets.drop_block, p, inplace, dims=2, block_size=block_size)


class DropBlock3d(SpecLayer):
    """:class:`DropBlock` on [n, c, d, h, w] or [c, d, h, w].

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        block_size: The edge of a block, in elements, or (depth, height, width).
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.
        RuntimeError: For inputs of another rank.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.DropBlock3d(0.1, 3)
        DropBlock3d(p=0.1, inplace=False, block_size=3)

    Reference:
        Ghiasi et al. 2018; :func:`thinned.presets.drop_block`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.1,
        block_size: int | tuple[int, int, int] = 7,
        inplace: bool = False,
    ) -> None:
        super().__init__(presets.drop_block, p, inplace, dims=3, block_size=block_size)
