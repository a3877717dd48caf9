"""Layers whose coins fall on whole channels, sequences, tokens or blocks of a map."""

from __future__ import annotations

from typing import Any

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE, SpecLayer


class _Blocks(SpecLayer):
    """:func:`thinned.presets.dropblock` on maps of ``dims`` axes."""

    dims = 0

    def __init__(
        self, rate: float, block_size: int | tuple[int, ...] = 7, data_format: str | None = None, seed: int | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        self.block_size = arguments.block_of(block_size, self.dims)
        self.data_format = arguments.data_format_of(data_format)
        spec = presets.drop_block(arguments.rate_of(rate), self.block_size)
        super().__init__(
            spec, seed=seed, data_format=self.data_format, ndim=self.dims + 2, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "block_size": self.block_size,
            "data_format": self.data_format,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock1D(_Blocks):
    """:func:`thinned.presets.dropblock` on [b, l, c] (``channels_last``) or [b, c, l]; Ghiasi et
    al. 2018.
    """

    dims = 1


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock2D(_Blocks):
    """:func:`thinned.presets.dropblock` on [b, h, w, c] (``channels_last``) or [b, c, h, w]; Ghiasi
    et al. 2018.

    ``rate`` in [0, 1]: of the map, not of seeds; blocks overlap, so a little less falls
    (:func:`thinned.algebra.per.block_fraction`). ``block_size``: a number or (height, width), at
    most the map's. What stays is divided by the fraction kept in this draw.
    """

    dims = 2


@keras.saving.register_keras_serializable(PACKAGE)
class DropBlock3D(_Blocks):
    """:func:`thinned.presets.dropblock` on [b, d, h, w, c] (``channels_last``) or [b, c, d, h, w];
    Ghiasi et al. 2018.
    """

    dims = 3


@keras.saving.register_keras_serializable(PACKAGE)
class LockedDropout(SpecLayer):
    """:func:`thinned.presets.locked` on [b, t, d]: a feature that falls stays away for all steps;
    Gal and Ghahramani 2016.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(
            presets.locked_dropout(arguments.rate_of(rate)), seed=seed, ndim=3, **kwargs
        )


@keras.saving.register_keras_serializable(PACKAGE)
class TokenDropout(SpecLayer):
    """:func:`thinned.presets.token` on [b, t, d]: whole tokens become zero vectors. For ids see
    :class:`WordDropout`.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(
            presets.token_dropout(arguments.rate_of(rate)), seed=seed, ndim=3, **kwargs
        )
