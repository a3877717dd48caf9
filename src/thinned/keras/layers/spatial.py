"""Layers that drop whole channels, or blocks of a feature map."""

from __future__ import annotations

from typing import Any, Literal

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE
from .spec_layer import SpecLayer

DataFormat = Literal["channels_last", "channels_first"]


@keras.saving.register_keras_serializable(PACKAGE)
class SpatialDropout(SpecLayer):
    """SpatialDropout: drops whole channels, for any number of spatial axes.

    Input [b, ..., c] (``channels_last``) or [b, c, ...]. Keras calls it SpatialDropout1D, 2D and
    3D, by rank.

    Args:
        rate: The probability of dropping, in [0, 1], typically 0.1 to 0.5; may be set at any time.
        scale: "inverted" or "classic".
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> SpatialDropout(0.2, data_format="channels_last").base_spec.of
        'b * c'

    Reference:
        Tompson, Goroshin, Jain, LeCun, Bregler 2015, "Efficient object localization using
        convolutional networks"; :func:`thinned.presets.spatial_dropout`.
    """

    config_names = ("rate", "scale", "data_format", "seed")

    def __init__(
        self,
        rate: float,
        scale: Literal["inverted", "classic"] = "inverted",
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        arguments.one_of(scale, "scale", ("inverted", "classic"))
        spec = presets.spatial_dropout(arguments.rate_of(rate), scale)
        super().__init__(spec, seed=seed, data_format=data_format, min_ndim=2, **kwargs)
        self.scale = scale


@keras.saving.register_keras_serializable(PACKAGE)
class SpatialDropout1D(SpecLayer):
    """:class:`SpatialDropout` on [b, t, c], as ``keras.layers.SpatialDropout1D``.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> SpatialDropout1D(0.2).rate
        0.2

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        spec = presets.spatial_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, data_format="channels_last", ndim=3, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class SpatialDropout2D(SpecLayer):
    """:class:`SpatialDropout` on [b, h, w, c] (``channels_last``) or [b, c, h, w], as
    ``keras.layers.SpatialDropout2D``.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> SpatialDropout2D(0.2).rate
        0.2

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """

    config_names = ("rate", "data_format", "seed")

    def __init__(
        self,
        rate: float,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = presets.spatial_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, data_format=data_format, ndim=4, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class SpatialDropout3D(SpecLayer):
    """:class:`SpatialDropout` on [b, d, h, w, c] (``channels_last``) or [b, c, d, h, w],
    as ``keras.layers.SpatialDropout3D``.

    Args:
        rate: The probability of dropping, in [0, 1]; may be set at any time.
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> SpatialDropout3D(0.2).rate
        0.2

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """

    config_names = ("rate", "data_format", "seed")

    def __init__(
        self,
        rate: float,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        spec = presets.spatial_dropout(arguments.rate_of(rate))
        super().__init__(spec, seed=seed, data_format=data_format, ndim=5, **kwargs)


class DropBlockLayer(SpecLayer):
    """Base of the DropBlock layers, on maps of ``dims`` axes; None takes any number. Abstract."""

    abstract = True
    config_names = ("rate", "block_size", "data_format", "seed")
    dims: int | None = None

    def __init__(
        self,
        rate: float,
        block_size: int | tuple[int, ...],
        data_format: DataFormat | None,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        block_size = arguments.block_of(block_size, self.dims)
        spec = presets.drop_block(arguments.rate_of(rate), block_size)
        ndim = None if self.dims is None else self.dims + 2
        super().__init__(spec, seed=seed, data_format=data_format, ndim=ndim, min_ndim=3, **kwargs)
        self.block_size = block_size


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock(DropBlockLayer):
    """DropBlock: drops contiguous blocks of each channel's map, for any number of spatial axes.

    Input [b, ..., c] (``channels_last``) or [b, c, ...]. The kept elements are divided by the
    fraction that this draw kept.

    Args:
        rate: The fraction of the map to drop, in [0, 1]; 0.1 in the paper, reached by a linear
            ramp. Blocks overlap, so a little less is dropped
            (:func:`thinned.algebra.per.block_fraction`). It may be set at any time.
        block_size: The edge of a block, in elements, for all spatial axes or one for each; at most
            the size of the map.
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropBlock(0.1, 5).block_size
        5

    Reference:
        Ghiasi, Lin, Le 2018, "DropBlock: a regularization method for convolutional networks",
        equation 1 and algorithm 1; :func:`thinned.presets.drop_block`.
    """

    def __init__(
        self,
        rate: float,
        block_size: int | tuple[int, ...] = 7,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, block_size, data_format, seed, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock1D(DropBlockLayer):
    """:class:`DropBlock` on [b, l, c] (``channels_last``) or [b, c, l].

    Args:
        rate: The fraction of the map to drop, in [0, 1]; may be set at any time.
        block_size: The length of a block, in elements.
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropBlock1D(0.1, 5).block_size
        5

    Reference:
        Ghiasi et al. 2018; :func:`thinned.presets.drop_block`.
    """

    dims = 1

    def __init__(
        self,
        rate: float,
        block_size: int = 7,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, block_size, data_format, seed, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock2D(DropBlockLayer):
    """:class:`DropBlock` on [b, h, w, c] (``channels_last``) or [b, c, h, w].

    Args:
        rate: The fraction of the map to drop, in [0, 1]; may be set at any time.
        block_size: The edge of a block, in elements, or (height, width).
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropBlock2D(0.1, (3, 5)).block_size
        (3, 5)

    Reference:
        Ghiasi et al. 2018; :func:`thinned.presets.drop_block`.
    """

    dims = 2

    def __init__(
        self,
        rate: float,
        block_size: int | tuple[int, int] = 7,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, block_size, data_format, seed, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock3D(DropBlockLayer):
    """:class:`DropBlock` on [b, d, h, w, c] (``channels_last``) or [b, c, d, h, w].

    Args:
        rate: The fraction of the map to drop, in [0, 1]; may be set at any time.
        block_size: The edge of a block, in elements, or (depth, height, width).
        data_format: "channels_last", "channels_first", or None for Keras's own setting.
        seed: An integer that fixes the draws; None takes a random one.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where an argument breaks a rule. It is a ValueError.

    Example:
        >>> DropBlock3D(0.1, 3).block_size
        3

    Reference:
        Ghiasi et al. 2018; :func:`thinned.presets.drop_block`.
    """

    dims = 3

    def __init__(
        self,
        rate: float,
        block_size: int | tuple[int, int, int] = 7,
        data_format: DataFormat | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, block_size, data_format, seed, **kwargs)
