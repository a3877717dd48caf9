"""Layers in Keras's manner: ``rate``, ``seed``, ``noise_shape``, ``data_format``, ``training=``, ``.keras`` files."""

from .attention import DropHead, DropHeadAttention
from .branches import DropPath, StochasticDepth
from .elementwise import AlphaDropout, Drop, Dropout, GaussianDropout, UniformDropout
from .learned import ConcreteDropout
from .recurrent import Zoneout
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
    "DropPath",
    "DropState",
    "Dropout",
    "EmbeddingDropout",
    "GaussianDropout",
    "LockedDropout",
    "PatchDropout",
    "StochasticDepth",
    "TokenDropout",
    "UniformDropout",
    "WordDropout",
    "Zoneout",
]
