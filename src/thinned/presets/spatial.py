"""Points whose coins fall on whole channels or on blocks of a map."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..algebra.drop import Drop
from ..algebra.law import Bernoulli
from ..algebra.per import Block
from ..algebra.scale import KeptFraction
from . import elementwise

CHANNELS = "b c *"


def spatial_dropout(p: float = 0.5, scale: Literal["inverted", "classic"] = "inverted") -> Drop:
    """SpatialDropout: one coin for each channel of each example; a whole feature map falls or
    stays.

    Layout ``b c *``: sequences [b, c, l], images [b, c, h, w], volumes [b, c, d, h, w].
    Neighbouring pixels say much the same, so dropping single pixels of a map hardly hides anything;
    dropping the map does. ``p`` in [0, 1], typically 0.1 to 0.5. It is torch's Dropout1d, 2d and
    3d, and Keras's SpatialDropout. On maps of one place it is dropout.

    >>> spatial_dropout(0.2).per
    'b c'

    Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using convolutional
    networks".
    """
    return Drop(
        Bernoulli(p),
        per="b c",
        of=CHANNELS,
        scale=elementwise.scale_of(scale),
        name="spatial_dropout",
    )


def feature_alpha_dropout(p: float = 0.05) -> Drop:
    """Feature alpha dropout: alpha dropout with one coin for each channel of each example.

    Klambauer et al. 2017; torch's FeatureAlphaDropout.

    >>> feature_alpha_dropout(0.1).per
    'b c'
    """
    return replace(
        elementwise.alpha_dropout(p), per="b c", of=CHANNELS, name="feature_alpha_dropout"
    )


def drop_block(p: float = 0.1, block_size: int | tuple[int, ...] = 7) -> Drop:
    """DropBlock: contiguous blocks of each channel's map fall together.

    Seeds fall with gamma = p / block^d * map / (map - block + 1)^d, only where a whole block fits,
    and each drops ``block_size`` places along every axis of the map; what stays is divided by the kept
    fraction of this draw. Layout ``b c *`` with one to three map axes; channels draw their own
    blocks. ``p`` in [0, 1], 0.1 in the paper, reached by a linear ramp; block 7; even sizes and
    maps that are not square are right.

    Blocks overlap, so a map loses a little less than p: :func:`thinned.algebra.per.block_fraction`
    says how much (0.093 for 0.1 on 14 x 14). timm 1.0.31 puts seeds everywhere under the same gamma
    and loses 0.21 there, 0.93 on 7 x 7; torchvision follows the paper but fails on even blocks.
    With block 1 this is dropout; with a block as large as the map, SpatialDropout.

    >>> drop_block(0.1, 3).per.size
    3

    Ghiasi, Lin, Le 2018, "DropBlock: a regularization method for convolutional networks", equation
    1, algorithm 1.
    """
    return Drop(
        Bernoulli(p),
        per=Block("*", block_size),
        of=CHANNELS,
        scale=KeptFraction(),
        name="drop_block",
    )
