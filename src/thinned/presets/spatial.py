"""Specs that drop whole channels, or blocks of a feature map."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.per import Block
from ..algebra.scale import KeptFraction, scale_of
from .elementwise import TWO_SCALES, alpha_dropout

CHANNELS = "b c *"


def spatial_dropout(p: float = 0.5, scale: Literal["inverted", "classic"] = "inverted") -> Drop:
    """SpatialDropout: drops whole feature maps, with one draw for each channel of each example.

    Layout ``b c *``: sequences [b, c, l], images [b, c, h, w], volumes [b, c, d, h, w].
    Neighboring pixels carry much the same information, so dropping single pixels of a map hides
    little; dropping the map hides all of it. It is Dropout1d, 2d and 3d of torch, and
    SpatialDropout of Keras. On maps of one element it is dropout.

    Args:
        p: The probability of dropping, in [0, 1]; typically 0.1 to 0.5.
        scale: "inverted" or "classic".

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range or unknown.

    Example:
        >>> spatial_dropout(0.2).per
        'b c'

    Reference:
        Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using
        convolutional networks".
    """
    return Drop(
        Bernoulli(p),
        per="b c",
        of=CHANNELS,
        scale=scale_of(scale, TWO_SCALES),
        name="spatial_dropout",
    )


def feature_alpha_dropout(p: float = 0.05) -> Drop:
    """Feature alpha dropout: alpha dropout with one draw for each channel of each example.

    Args:
        p: The probability of dropping, in [0, 1].

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> feature_alpha_dropout(0.1).per
        'b c'

    Reference:
        Klambauer et al. 2017, "Self-normalizing neural networks"; FeatureAlphaDropout of torch.
    """
    return replace(alpha_dropout(p), per="b c", of=CHANNELS, name="feature_alpha_dropout")


def drop_block(p: float = 0.1, block_size: int | tuple[int, ...] = 7) -> Drop:
    """DropBlock: drops contiguous blocks of each feature map.

    Seeds are drawn with the rate gamma = p / block^d * map / (map - block + 1)^d, only where a
    whole block fits, and each drops ``block_size`` elements along every axis of the map. Kept
    elements are divided by the kept fraction of the present mask. Layout ``b c *`` with one to
    three map axes; each channel draws its own blocks. Even block sizes and maps that are not square
    are handled correctly.

    Blocks overlap, so a map loses a little less than p:
    :func:`thinned.algebra.per.block_fraction` computes how much (0.093 for 0.1 on 14 x 14). timm
    1.0.31 puts seeds everywhere at the same gamma and loses 0.21 there, and 0.93 on 7 x 7;
    torchvision follows the paper but fails on even blocks. With block size 1 this is dropout; with
    a block as large as the map, SpatialDropout.

    Args:
        p: The fraction of the map to drop, in [0, 1]; 0.1 in the paper, reached by a linear ramp.
        block_size: The number of elements of a block along each map axis: one number for all, or
            one for each. 7 in the paper.

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range.

    Example:
        >>> drop_block(0.1, 3).per.size
        3

    Reference:
        Ghiasi, Lin, Le 2018, "DropBlock: a regularization method for convolutional networks",
        equation 1, algorithm 1.
    """
    return Drop(
        Bernoulli(p),
        per=Block("*", block_size),
        of=CHANNELS,
        scale=KeptFraction(),
        name="drop_block",
    )
