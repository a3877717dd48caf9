"""Dropout layers for torch, and what moves them: random keys, modes and schedules.

The mathematics is in :mod:`thinned.functional` and the engines.
"""

from .activations import FastDropout, Jumpout, Standout
from .agents import droq
from .attention import AttentionDropout, DropHead, DropKey
from .branches import LayerDrop, ShakeDrop, ShakeShake, Swapout
from .depth import DropPath, StochasticDepth
from .drop_connect import DropConnect
from .dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from .elementwise import BatchwiseDropout, GaussianDropout, UniformDropout
from .embeddings import EmbeddingDropout, WordDropout
from .graphs import DropEdge, DropMessage, DropNode
from .information import InformationDropout
from .keys import ModelKey, key_of, step
from .learned import divergence
from .learned_rates import ConcreteDropout, VariationalDropout
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
from .modes import Tape
from .module import DropoutModule, RatedModule
from .multihead import MultiheadAttention
from .recurrent import (
    DropState,
    RecurrentDropout,
    RNNDrop,
    VariationalRNNDropout,
    WeightDrop,
    Zoneout,
)
from .sequences import LockedDropout
from .sparse_variational import SparseVariationalDropout
from .spatial import DropBlock, DropBlock1d, DropBlock2d, DropBlock3d, SpatialDropout
from .spec_layer import SpecDropout
from .thinned import Thinned
from .tokens import HiddenCut, PatchDropout, TokenDropout
from .weight_methods import (
    MethodWeightDropout,
    Mixout,
    Shakeout,
    TargetedDropout,
    TargetedUnitDropout,
)

__all__ = [
    "AlphaDropout",
    "AttentionDropout",
    "BatchwiseDropout",
    "ConcreteDropout",
    "Cutout",
    "Disout",
    "DropBlock",
    "DropBlock1d",
    "DropBlock2d",
    "DropBlock3d",
    "DropConnect",
    "DropEdge",
    "DropHead",
    "DropKey",
    "DropMessage",
    "DropNode",
    "DropPath",
    "DropState",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "DropoutModule",
    "EmbeddingDropout",
    "FastDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "HiddenCut",
    "InformationDropout",
    "Jumpout",
    "LayerDrop",
    "LockedDropout",
    "LoraDropout",
    "MaxPoolDropout1d",
    "MaxPoolDropout2d",
    "MaxPoolDropout3d",
    "MethodDropout",
    "MethodWeightDropout",
    "Mixout",
    "ModelKey",
    "MultiheadAttention",
    "PatchDropout",
    "RNNDrop",
    "RatedModule",
    "RecurrentDropout",
    "ShakeDrop",
    "ShakeShake",
    "Shakeout",
    "SparseVariationalDropout",
    "SpatialDropout",
    "SpecDropout",
    "Standout",
    "StochasticDepth",
    "Swapout",
    "Tape",
    "TargetedDropout",
    "TargetedUnitDropout",
    "Thinned",
    "TokenDropout",
    "UniformDropout",
    "VariationalDropout",
    "VariationalRNNDropout",
    "WeightDrop",
    "WeightedChannelDropout",
    "WordDropout",
    "Zoneout",
    "divergence",
    "droq",
    "fraternal",
    "key_of",
    "multi_sample",
    "r_drop",
    "step",
]
