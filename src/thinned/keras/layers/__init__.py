"""Layers in Keras's manner: ``rate``, ``seed``, ``noise_shape``, ``data_format``, ``training=``, ``.keras`` files."""

from .attention import DropHead, DropHeadAttention, DropKey, DropKeyAttention
from .branches import DropPath, StochasticDepth
from .elementwise import AlphaDropout, Drop, Dropout, GaussianDropout, UniformDropout
from .learned import ConcreteDropout
from .recurrent import Zoneout
from .residual import LayerDrop, ShakeDrop, ShakeShake, Swapout
from .spatial import DropBlock1D, DropBlock2D, DropBlock3D, LockedDropout, TokenDropout
from .states import DropState
from .tokens import PatchDropout, WordDropout
from .weights import DropConnect
from .words import EmbeddingDropout

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "Drop",
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
    "LayerDrop",
    "LockedDropout",
    "PatchDropout",
    "ShakeDrop",
    "ShakeShake",
    "StochasticDepth",
    "Swapout",
    "TokenDropout",
    "UniformDropout",
    "WordDropout",
    "Zoneout",
]
