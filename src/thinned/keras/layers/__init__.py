"""Dropout layers for Keras 3, with Keras's own arguments and files.

They take ``rate``, ``seed``, ``noise_shape``, ``data_format`` and ``training=``, and are registered
for ``.keras`` files.
"""

from .activations import Jumpout, Standout
from .attention import DropHead, DropHeadAttention, DropKey, DropKeyAttention
from .branches import LayerDrop, ShakeDrop, ShakeShake, Swapout
from .depth import DropPath, StochasticDepth
from .drop_connect import DropConnect, WeightDrop
from .elementwise import (
    AlphaDropout,
    BatchwiseDropout,
    Dropout,
    FeatureAlphaDropout,
    GaussianDropout,
    UniformDropout,
)
from .embeddings import EmbeddingDropout
from .graphs import DropMessage, DropNode
from .learned import ConcreteDropout, InformationDropout, VariationalDropout
from .maps import Cutout
from .recurrent import DropState, RecurrentDropout, RNNDrop, VariationalRNNDropout
from .sequences import LockedDropout
from .spatial import (
    DropBlock,
    DropBlock1D,
    DropBlock2D,
    DropBlock3D,
    SpatialDropout,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
from .spec_layer import SpecDropout
from .tokens import HiddenCut, PatchDropout, TokenDropout, WordDropout
from .weight_methods import Mixout, Shakeout, TargetedDropout, TargetedUnitDropout
from .zoneout import Zoneout

__all__ = [
    "AlphaDropout",
    "BatchwiseDropout",
    "ConcreteDropout",
    "Cutout",
    "DropBlock",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "DropConnect",
    "DropHead",
    "DropHeadAttention",
    "DropKey",
    "DropKeyAttention",
    "DropMessage",
    "DropNode",
    "DropPath",
    "DropState",
    "Dropout",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "HiddenCut",
    "InformationDropout",
    "Jumpout",
    "LayerDrop",
    "LockedDropout",
    "Mixout",
    "PatchDropout",
    "RNNDrop",
    "RecurrentDropout",
    "ShakeDrop",
    "ShakeShake",
    "Shakeout",
    "SpatialDropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "SpecDropout",
    "Standout",
    "StochasticDepth",
    "Swapout",
    "TargetedDropout",
    "TargetedUnitDropout",
    "TokenDropout",
    "UniformDropout",
    "VariationalDropout",
    "VariationalRNNDropout",
    "WeightDrop",
    "WordDropout",
    "Zoneout",
]
