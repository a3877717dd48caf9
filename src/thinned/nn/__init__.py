"""Hosts: modules that hold a point and a place. Mathematics lives in :mod:`thinned.functional` and
the engines.
"""

from .activations import FastDropout, Jumpout, StandoutDropout
from .agents import droq
from .attention import DropAttention, DropHead, DropKey
from .branches import LayerDrop, ShakeDrop, ShakeShake, Swapout
from .drop_connect import DropWeight
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
from .embeddings import EmbeddingDropout, WordDropout
from .graphs import DropEdge, DropMessage, DropNode
from .keys import ModelKey, key, key_of, step
from .learned import (
    ConcreteDropout,
    InformationDropout,
    SparseVariationalDropout,
    VariationalDropout,
    divergence,
)
from .lora import LoraDropout
from .loss import fraternal, multi_sample, r_drop
from .maps import (
    Cutout,
    Disout,
    MaxPoolDropout1d,
    MaxPoolDropout2d,
    MaxPoolDropout3d,
    WeightedChannelDropout,
)
from .method import MethodDropout
from .modes import Tape, frozen, off, recording, replaying, sampling
from .recurrent import DropState
from .thinned import Thinned
from .tokens import HiddenCut, PatchDropout
from .weight_methods import MethodDropWeight, Mixout, Shakeout, Targeted

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "Cutout",
    "Disout",
    "DropAttention",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropEdge",
    "DropHead",
    "DropKey",
    "DropMessage",
    "DropNode",
    "DropState",
    "DropWeight",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "EmbeddingDropout",
    "FastDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "HiddenCut",
    "InformationDropout",
    "Jumpout",
    "LayerDrop",
    "LoraDropout",
    "MaxPoolDropout1d",
    "MaxPoolDropout2d",
    "MaxPoolDropout3d",
    "MethodDropWeight",
    "MethodDropout",
    "Mixout",
    "ModelKey",
    "PatchDropout",
    "ShakeDrop",
    "ShakeShake",
    "Shakeout",
    "SparseVariationalDropout",
    "StandoutDropout",
    "Swapout",
    "Tape",
    "Targeted",
    "Thinned",
    "VariationalDropout",
    "WeightedChannelDropout",
    "WordDropout",
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
