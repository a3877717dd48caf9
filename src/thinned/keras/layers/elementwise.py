"""Layers whose coins fall on single elements, and the layer of any point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras

from ... import presets
from ..._errors import InputError
from ...algebra.drop import Drop
from ...algebra.law import Bernoulli
from .. import arguments
from .base import PACKAGE, SpecLayer

NoiseShape = Sequence[int | None] | None


@keras.saving.register_keras_serializable(PACKAGE)
class SpecDropout(SpecLayer):
    """Any point on activations.

    ``spec``: a :class:`thinned.Drop`, the name of a preset with its ``arguments``, or what
    ``Drop.to_json`` gives. The point's layout names the input's axes; where it is ``"b c *"``,
    ``data_format`` says where the channels are, as in Keras. ``noise_shape`` takes the place of the
    point's coins. ``rate`` is the point's and may be set at any time.

    Input and output: any shape that fits the layout, of a floating type. Raises
    :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        spec: Drop | str | Mapping[str, Any],
        *,
        arguments_of_spec: Mapping[str, Any] | None = None,
        seed: int | None = None,
        noise_shape: NoiseShape = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(spec, str):
            spec = presets.make(spec, **(arguments_of_spec or {}))
        elif arguments_of_spec:
            raise InputError(
                f"a Drop says everything itself; unexpected {', '.join(arguments_of_spec)}"
            )
        elif isinstance(spec, Mapping):
            spec = Drop.from_json(dict(spec))
        elif not isinstance(spec, Drop):
            rule = "Expected a thinned.Drop, the name of a preset, or a point as JSON."
            raise arguments.invalid("point", rule, repr(spec))
        self.below_one = not isinstance(spec.law, Bernoulli)
        data_format = arguments.data_format_of(data_format)
        super().__init__(
            spec, seed=seed, noise_shape=noise_shape, data_format=data_format, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["rate"]
        return {
            **config,
            "point": self.base_spec.at(self.rate).to_json(),
            "noise_shape": self.noise_shape,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class Dropout(SpecLayer):
    """:func:`thinned.presets.dropout`, with classic scaling too: Srivastava et al. 2014.

    ``rate`` in [0, 1] has no default, as in Keras. ``scale``: ``"inverted"`` divides by 1 - rate
    while training, and evaluation is the identity; ``"classic"`` multiplies by 1 - rate in
    evaluation. ``noise_shape`` as in Keras: 1 where an axis shares its coins. Raises
    :class:`thinned.InputError`, a ValueError.
    """

    def __init__(
        self,
        rate: float,
        scale: Literal["inverted", "classic"] = "inverted",
        noise_shape: NoiseShape = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.scale = arguments.one_of(scale, "scale", ("inverted", "classic"))
        spec = presets.dropout(arguments.rate_of(rate), scale)
        super().__init__(spec, seed=seed, noise_shape=noise_shape, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "noise_shape": self.noise_shape}


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianDropout(SpecLayer):
    """:func:`thinned.presets.gaussian`: times N(1, rate / (1 - rate)). ``rate`` in [0, 1); Keras's
    divides by zero at 1.
    """

    below_one = True

    def __init__(
        self, rate: float, noise_shape: NoiseShape = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        spec = presets.gaussian_dropout(arguments.rate_of(rate, below_one=True))
        super().__init__(spec, seed=seed, noise_shape=noise_shape, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise_shape": self.noise_shape}


@keras.saving.register_keras_serializable(PACKAGE)
class AlphaDropout(SpecLayer):
    """:func:`thinned.presets.alpha`, for SELU networks. At ``rate`` 1 all is zero, where Keras's
    layer divides by zero.
    """

    def __init__(
        self, rate: float, noise_shape: NoiseShape = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            presets.alpha_dropout(arguments.rate_of(rate)),
            seed=seed,
            noise_shape=noise_shape,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise_shape": self.noise_shape}


@keras.saving.register_keras_serializable(PACKAGE)
class UniformDropout(SpecLayer):
    """:func:`thinned.presets.uout`: times 1 + r, r ~ U(-rate, rate); ``rate`` (beta) in [0, 1]. For
    use before batch norm.
    """

    def __init__(
        self,
        rate: float = 0.1,
        noise_shape: NoiseShape = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            presets.uniform_dropout(arguments.rate_of(rate)),
            seed=seed,
            noise_shape=noise_shape,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "noise_shape": self.noise_shape}
