"""The layer of a spec, under its own name where it has one."""

from __future__ import annotations

from collections.abc import Callable

from .. import presets
from ..algebra.drop import Drop
from ..algebra.schedule import Schedule
from . import depth, dropout, elementwise, sequences, spatial, tokens
from .spec_layer import SpecDropout, SpecLayer

_CLASSIC = {"scale": "classic"}
_NAMED: tuple[tuple[Callable[..., Drop], Callable[..., SpecLayer], dict[str, str]], ...] = (
    (presets.dropout, dropout.Dropout, {}),
    (presets.dropout, dropout.Dropout, _CLASSIC),
    (presets.gaussian_dropout, elementwise.GaussianDropout, {}),
    (presets.uniform_dropout, elementwise.UniformDropout, {}),
    (presets.alpha_dropout, dropout.AlphaDropout, {}),
    (presets.feature_alpha_dropout, dropout.FeatureAlphaDropout, {}),
    (presets.batchwise_dropout, elementwise.BatchwiseDropout, {}),
    (presets.spatial_dropout, spatial.SpatialDropout, {}),
    (presets.spatial_dropout, spatial.SpatialDropout, _CLASSIC),
    (presets.drop_block, spatial.DropBlock, {}),
    (presets.drop_path, depth.DropPath, {}),
    (presets.drop_path, depth.DropPath, {"scale": "unscaled"}),
    (presets.stochastic_depth, depth.StochasticDepth, {}),
    (presets.stochastic_depth, depth.StochasticDepth, {"per": "batch"}),
    (presets.locked_dropout, sequences.LockedDropout, {}),
    (presets.token_dropout, tokens.TokenDropout, {}),
)


def layer_of(spec: float | str | Drop | Schedule) -> SpecLayer:
    """The layer of a rate, a schedule, a preset's name or a spec.

    >>> layer_of(0.5), layer_of(presets.drop_path(0.2))
    (Dropout(p=0.5, inplace=False), DropPath(p=0.2, inplace=False))
    """
    if isinstance(spec, str):
        spec = presets.make(spec)
    if not isinstance(spec, Drop):
        return dropout.Dropout(spec)
    for make, layer, settings in _NAMED:
        # compared at a rate that every distribution takes, since a spec's own may be 1
        if spec.at(0.25) == make(0.25, **settings):
            return layer(spec.rate, **settings)
    return SpecDropout(spec)
