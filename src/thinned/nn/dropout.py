"""Dropout on single elements, and the dropout layers that torch has, under torch's names.

Each is an instance of torch's class of the same name, so code that looks for ``torch.nn.Dropout``
finds it. Layers of other distributions are ``torch.nn.modules.dropout._DropoutNd`` only.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch import nn as torch_nn

from .. import presets
from ..algebra.drop import Drop
from ..algebra.schedule import Schedule
from ..engines.torch.dispatch import Impl
from ..functional.torch_functions import check_channels
from .spec_layer import Shard, SpecLayer


class Dropout(SpecLayer, torch_nn.Dropout):
    """Dropout: zeroes each element with probability ``p`` while training.

    Inverted scaling (the default, and torch's): y = m x / (1 - p) while training, y = x in
    evaluation. Classic scaling: y = m x while training, y = (1 - p) x in evaluation. Arguments,
    errors and edge cases are those of ``torch.nn.Dropout``.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it, moved by
            :meth:`ModelKey.at` or :func:`thinned.step`.
        inplace: Whether to write the result into the input.
        scale: "inverted" or "classic".
        layout: The input's axes by name where the examples are not first, such as ``"t b d"``, or
            ``"(b t) d"`` for examples and tokens flattened into one axis.
        shard: (axis, index, count) where this rank holds one of ``count`` equal parts of an axis.
        impl: "auto", "reference", "native" or "triton"; see :func:`thinned.functional.drop`.

    Raises:
        InputError: Where an argument breaks a rule; it is a ValueError, as in torch.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Dropout(0.5)
        Dropout(p=0.5, inplace=False)

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to
        prevent neural networks from overfitting", sections 4 and 10;
        :func:`thinned.presets.dropout`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        inplace: bool = False,
        *,
        scale: Literal["inverted", "classic"] = "inverted",
        layout: str | None = None,
        shard: Shard | None = None,
        impl: Impl | None = None,
    ) -> None:
        super().__init__(
            presets.dropout, p, inplace, layout=layout, shard=shard, impl=impl, scale=scale
        )


class Dropout1d(SpecLayer, torch_nn.Dropout1d):
    """Drops whole channels of [n, c, l] or [c, l], as ``torch.nn.Dropout1d``.

    It is :class:`SpatialDropout` on inputs of this rank.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.
        RuntimeError: For inputs of another rank, as in torch.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Dropout1d(0.2)
        Dropout1d(p=0.2, inplace=False)

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.spatial_dropout, p, inplace, dims=1)


class Dropout2d(SpecLayer, torch_nn.Dropout2d):
    """Drops whole feature maps of [n, c, h, w], as ``torch.nn.Dropout2d``.

    It is :class:`SpatialDropout` on inputs of this rank.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Dropout2d(0.2)
        Dropout2d(p=0.2, inplace=False)

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.spatial_dropout, p, inplace, dims=2)


class Dropout3d(SpecLayer, torch_nn.Dropout3d):
    """Drops whole channels of [n, c, d, h, w] or [c, d, h, w], as ``torch.nn.Dropout3d``.

    It is :class:`SpatialDropout` on inputs of this rank.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.
        RuntimeError: For inputs of another rank, as in torch.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Dropout3d(0.2)
        Dropout3d(p=0.2, inplace=False)

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.spatial_dropout, p, inplace, dims=3)


class AlphaDropout(SpecLayer, torch_nn.AlphaDropout):
    """Alpha dropout for SELU networks: keeps a mean of 0 and a variance of 1, as
    ``torch.nn.AlphaDropout``.

    torch ignores ``inplace`` here; this layer does not.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it; 0.05 to 0.1 in the paper.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.AlphaDropout(0.05)
        AlphaDropout(p=0.05, inplace=False)

    Reference:
        Klambauer et al. 2017, "Self-normalizing neural networks";
        :func:`thinned.presets.alpha_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.alpha_dropout, p, inplace)


class FeatureAlphaDropout(SpecLayer, torch_nn.FeatureAlphaDropout):
    """Alpha dropout of whole channels, as ``torch.nn.FeatureAlphaDropout``.

    Args:
        p: The probability of dropping, in [0, 1], or a schedule of it.
        inplace: Whether to write the result into the input.

    Raises:
        InputError: Where an argument breaks a rule.
        RuntimeError: For inputs without an axis of channels, as in torch.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.FeatureAlphaDropout(0.05)
        FeatureAlphaDropout(p=0.05, inplace=False)

    Reference:
        Klambauer et al. 2017; :func:`thinned.presets.feature_alpha_dropout`.
    """

    def __init__(self, p: float | Schedule = 0.5, inplace: bool = False) -> None:
        super().__init__(presets.feature_alpha_dropout, p, inplace)

    def _laid_out(self, spec: Drop, x: Tensor) -> Drop:
        check_channels(type(self).__name__, x)
        return spec
