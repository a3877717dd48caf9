"""Hosts: modules that hold a point and a place. Mathematics lives in :mod:`thinned.functional` and the engines."""

from .dropout import (
    AlphaDropout,
    DropBlock1d,
    DropBlock2d,
    DropBlock3d,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    GaussianDropout,
)
from .keys import ModelKey, key
from .modes import off, sampling
from .weight import DropWeight

__all__ = [
    "AlphaDropout",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropWeight",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "ModelKey",
    "key",
    "off",
    "sampling",
]
