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
from .keys import ModelKey, key, key_of
from .modes import Tape, frozen, off, recording, replaying, sampling
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
    "Tape",
    "frozen",
    "key",
    "key_of",
    "off",
    "recording",
    "replaying",
    "sampling",
]
