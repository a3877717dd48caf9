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
from .keys import ModelKey, key, key_of, step
from .loss import fraternal, multi_sample, r_drop
from .modes import Tape, frozen, off, recording, replaying, sampling
from .state import DropState
from .weight import DropWeight
from .words import EmbeddingDropout, WordDropout

__all__ = [
    "AlphaDropout",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropState",
    "DropWeight",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "ModelKey",
    "Tape",
    "WordDropout",
    "fraternal",
    "frozen",
    "key",
    "key_of",
    "multi_sample",
    "off",
    "r_drop",
    "recording",
    "replaying",
    "sampling",
    "step",
]
