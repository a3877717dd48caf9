"""Layers on the branch of a residual block."""

from __future__ import annotations

from typing import Any, Literal

import keras

from ... import presets
from .. import arguments
from .base import PACKAGE, SpecLayer


@keras.saving.register_keras_serializable(PACKAGE)
class DropPath(SpecLayer):
    """:func:`thinned.presets.drop_path`: the branch of an example falls as a whole. ``x +
    DropPath(0.1)(branch)``.

    Input [b, ...]. ``scale="unscaled"`` leaves out the division by 1 - rate. Larsson et al.
    2017.
    """

    def __init__(
        self,
        rate: float,
        scale: Literal["inverted", "unscaled"] = "inverted",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.scale = arguments.one_of(scale, "scale", ("inverted", "unscaled"))
        super().__init__(presets.drop_path(arguments.rate_of(rate), scale), seed=seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable(PACKAGE)
class StochasticDepth(SpecLayer):
    """:func:`thinned.presets.stochastic_depth`: the branch falls while training and is times 1 -
    rate in evaluation.

    ``x + StochasticDepth(0.5)(branch)``. ``per``: a coin for each ``"example"``, or for the whole
    ``"batch"``. Huang et al. 2016.
    """

    def __init__(
        self,
        rate: float,
        per: Literal["example", "batch"] = "example",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.per = arguments.one_of(per, "per", ("example", "batch"))
        super().__init__(
            presets.stochastic_depth(arguments.rate_of(rate), per), seed=seed, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per": self.per}
