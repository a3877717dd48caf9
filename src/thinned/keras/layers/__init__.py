"""Layers in Keras's manner: ``rate``, ``seed``, ``noise_shape``, ``data_format``, ``training=``,
``.keras`` files.
"""

from .adaptive import Jumpout, Standout
from .anchored import Mixout, Shakeout
from .attention import DropHead, DropHeadAttention, DropKey, DropKeyAttention
from .branches import DropPath, StochasticDepth
from .cutting import Cutout, HiddenCut
from .elementwise import AlphaDropout, Dropout, GaussianDropout, SpecDropout, UniformDropout
from .embeddings import EmbeddingDropout
from .learned import ConcreteDropout
from .recurrent import Zoneout
from .residual import LayerDrop, ShakeDrop, ShakeShake, Swapout
from .spatial import DropBlock1D, DropBlock2D, DropBlock3D, LockedDropout, TokenDropout
from .states import DropState
from .targeted import TargetedDropout
from .tokens import PatchDropout, WordDropout
from .variational import InformationDropout, VariationalDropout
from .weights import DropConnect

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "Cutout",
    "DropBlock1D",
    "DropBlock2D",
    "DropBlock3D",
    "DropConnect",
    "DropHead",
    "DropHeadAttention",
    "DropKey",
    "DropKeyAttention",
    "DropPath",
    "DropState",
    "Dropout",
    "EmbeddingDropout",
    "GaussianDropout",
    "HiddenCut",
    "InformationDropout",
    "Jumpout",
    "LayerDrop",
    "LockedDropout",
    "Mixout",
    "PatchDropout",
    "ShakeDrop",
    "ShakeShake",
    "Shakeout",
    "SpecDropout",
    "Standout",
    "StochasticDepth",
    "Swapout",
    "TargetedDropout",
    "TokenDropout",
    "UniformDropout",
    "VariationalDropout",
    "WordDropout",
    "Zoneout",
]
