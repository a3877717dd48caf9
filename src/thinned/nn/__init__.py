"""Hosts: modules that hold a point and a place. Mathematics lives in :mod:`thinned.functional` and the engines."""

from .activations import FastDropout, Jumpout, StandoutDropout
from .agents import droq
from .branches import LayerDrop, ShakeDrop, ShakeShake, Swapout
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
from .learned import ConcreteDropout, InformationDropout, SparseVariationalDropout, VariationalDropout, divergence
from .lora import LoraDropout
from .loss import fraternal, multi_sample, r_drop
from .method import MethodDropout
from .modes import Tape, frozen, off, recording, replaying, sampling
from .reweighted import MethodDropWeight, Mixout, Shakeout, Targeted
from .weight import DropWeight

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropWeight",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FastDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "InformationDropout",
    "Jumpout",
    "LayerDrop",
    "LoraDropout",
    "MethodDropWeight",
    "MethodDropout",
    "Mixout",
    "ModelKey",
    "ShakeDrop",
    "ShakeShake",
    "Shakeout",
    "SparseVariationalDropout",
    "StandoutDropout",
    "Swapout",
    "Tape",
    "Targeted",
    "VariationalDropout",
    "divergence",
    "droq",
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
