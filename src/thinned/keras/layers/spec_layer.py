"""Layers with a spec as their noise, and the layer of any spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from ...algebra.drop import Drop
from ...algebra.law import Bernoulli
from ...engines import keras as engine
from .. import arguments
from .base import PACKAGE, RatedLayer, floating

CHANNELS_LAST = {"b c *": "b * c"}  # the layout of a spec -> the same under channels_last


class SpecLayer(RatedLayer, keras.layers.Layer):
    """Base of the layers with a :class:`thinned.Drop` as noise on their input. Abstract.

    ``ndim`` and ``min_ndim`` are the number of axes that the input has to have; the other
    arguments are those of :class:`SpecDropout`.
    """

    abstract = True

    def __init__(
        self,
        spec: Drop,
        *,
        seed: int | None = None,
        noise_shape: Sequence[int | None] | None = None,
        data_format: str | None = None,
        ndim: int | None = None,
        min_ndim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = arguments.data_format_of(data_format)
        if spec.of in CHANNELS_LAST and self.data_format == "channels_last":
            spec = replace(spec, of=CHANNELS_LAST[spec.of])
        self.base_spec = spec
        self.start(spec.rate, seed)
        self.noise_shape = arguments.noise_shape_of(noise_shape)
        if ndim is not None or min_ndim is not None:
            self.input_spec = keras.layers.InputSpec(ndim=ndim, min_ndim=min_ndim)
        self.build_at_init()

    def call(self, inputs: Any, training: bool = False) -> Any:
        x = floating(inputs, self)
        if not training:
            return engine.mean(x, self.base_spec, self.now())
        return engine.sample(x, self.base_spec, self.now(), self.seed_generator, self.noise_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        engine.check(tuple(input_shape), self.base_spec, self.noise_shape)
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class SpecDropout(SpecLayer):
    """The layer of any :class:`thinned.Drop`: the way from a spec of your own to a Keras layer.

    While training it draws y = a x + b as the spec says; in evaluation it does what the scale of
    the spec says. The methods of the catalog have layers of their own names.

    Args:
        spec: What to drop, with its rate. Its layout names the axes of the input.
        seed: An integer that fixes the draws; None takes a random one.
        noise_shape: Replaces the axes of the spec, in Keras's form: 1 where an axis shares its
            draws, None or the size of the axis otherwise.
        data_format: Where the channels of a spec with the layout ``"b c *"`` are:
            "channels_last", "channels_first", or None for Keras's own setting.
        **kwargs: Arguments of ``keras.layers.Layer``, such as ``name`` and ``dtype``.

    Raises:
        InputError: Where ``spec`` is no Drop, or does not fit the input. It is a ValueError.

    Example:
        >>> from thinned import Drop
        >>> from thinned.algebra import Bernoulli
        >>> layer = SpecDropout(Drop(Bernoulli(0.3), per="b d", of="b t d"))
        >>> layer.rate, layer.base_spec.per
        (0.3, 'b d')

    Reference:
        The algebra of affine noise maps: docs/design.md.
    """

    config_names = ("noise_shape", "data_format", "seed")

    def __init__(
        self,
        spec: Drop,
        *,
        seed: int | None = None,
        noise_shape: Sequence[int | None] | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(spec, Drop):
            rule = "Expected a thinned.Drop; for a rate alone write thinned.keras.layers.Dropout."
            raise arguments.invalid("spec", rule, repr(spec))
        self.below_one = not isinstance(spec.law, Bernoulli)
        super().__init__(
            spec, seed=seed, noise_shape=noise_shape, data_format=data_format, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "spec": self.base_spec.at(self.rate).to_json()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SpecDropout:
        """The layer of a configuration, in which ``spec`` is what ``Drop.to_json`` returns."""
        spec = config["spec"]
        spec = spec if isinstance(spec, Drop) else Drop.from_json(dict(spec))
        return super().from_config({**config, "spec": spec})
