"""Dropout as functions: torch's own, every other method's, and :func:`drop`, which takes any point."""

from .attention import drop_head, drop_key
from .core import Mode, drop, explain, mask
from .fused import bias_act_dropout, dropout_add, dropout_add_layer_norm
from .named import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from .recurrent import weight_drop, zoneout
from .weights import mixout, shakeout
from .words import embedding_dropout, word_dropout

__all__ = [
    "Mode",
    "alpha_dropout",
    "bias_act_dropout",
    "drop",
    "drop_head",
    "drop_key",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_add",
    "dropout_add_layer_norm",
    "embedding_dropout",
    "explain",
    "feature_alpha_dropout",
    "mask",
    "mixout",
    "shakeout",
    "weight_drop",
    "word_dropout",
    "zoneout",
]
