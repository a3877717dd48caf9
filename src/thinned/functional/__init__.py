"""Dropout as functions: those of torch, those of the catalog, and :func:`drop` for any Drop.

A dropout method of your own is made of the keyed draws :func:`bernoulli_mask`, :func:`uniform`,
:func:`normal` and :func:`random_subset`; :func:`resolve_key` and :func:`fold_in` derive their keys.
"""

from ..engines.torch.tensor_key import TensorKey
from .activations import fast_dropout, jumpout, rectified_moments, sigmoid_mean, standout
from .attention import attention_dropout, drop_head, drop_key
from .branches import shake_drop, shake_shake, swapout
from .core import (
    Mode,
    bernoulli_mask,
    drop,
    explain,
    fold_in,
    mask,
    normal,
    random_subset,
    resolve_key,
    uniform,
)
from .embeddings import embedding_dropout, word_dropout
from .fused import bias_act_dropout, dropout_add, dropout_add_layer_norm
from .graphs import drop_edge, gcn_normalize
from .learned import (
    concrete_divergence,
    concrete_dropout,
    concrete_mean,
    information_divergence,
    information_dropout,
    sparse_divergence,
    variational_divergence,
    variational_dropout,
)
from .maps import cutout, disout, max_pool_dropout, weighted_channel_dropout
from .recurrent import weight_drop, zoneout
from .thinning import thin_units, thinned_linear
from .tokens import hidden_cut, patch_dropout
from .torch_functions import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from .weights import dare, mixout, shakeout, targeted_dropout

__all__ = [
    "Mode",
    "TensorKey",
    "alpha_dropout",
    "attention_dropout",
    "bernoulli_mask",
    "bias_act_dropout",
    "concrete_divergence",
    "concrete_dropout",
    "concrete_mean",
    "cutout",
    "dare",
    "disout",
    "drop",
    "drop_edge",
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
    "fast_dropout",
    "feature_alpha_dropout",
    "fold_in",
    "gcn_normalize",
    "hidden_cut",
    "information_divergence",
    "information_dropout",
    "jumpout",
    "mask",
    "max_pool_dropout",
    "mixout",
    "normal",
    "patch_dropout",
    "random_subset",
    "rectified_moments",
    "resolve_key",
    "shake_drop",
    "shake_shake",
    "shakeout",
    "sigmoid_mean",
    "sparse_divergence",
    "standout",
    "swapout",
    "targeted_dropout",
    "thin_units",
    "thinned_linear",
    "uniform",
    "variational_divergence",
    "variational_dropout",
    "weight_drop",
    "weighted_channel_dropout",
    "word_dropout",
    "zoneout",
]
