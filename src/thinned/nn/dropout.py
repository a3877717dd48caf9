"""The host on activations, and torch's names for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from .. import functional, presets
from .._errors import InputError
from ..algebra.drop import Drop
from .host import Host


class Dropout(Host, _DropoutNd):
    """Any point on activations; with a number, torch's Dropout.

    ``method``: the rate, the name of a preset with its arguments, or a :class:`thinned.algebra.Drop`.
    ``inplace``: write the result into the input. ``dims``: the axes of the map (1, 2 or 3), which then decides how
    the input's rank is read, as torch's Dropout1d, 2d and 3d do. ``p`` may be changed at any time.

    >>> Dropout(0.5), Dropout("dropblock", p=0.1, block=5).p
    (Dropout(p=0.5, inplace=False), 0.1)

    It is a torch ``_DropoutNd``, so tools that look for dropout find it.
    """

    def __init__(
        self,
        method: float | str | Drop | None = None,
        inplace: bool = False,
        *,
        dims: int | None = None,
        **arguments: Any,
    ) -> None:
        if isinstance(method, str):
            point = presets.make(method, **arguments)
        elif isinstance(method, Drop):
            if arguments:
                raise InputError(f"a Drop says everything itself; unexpected {', '.join(arguments)}")
            point = method
        else:
            if method is not None:
                arguments["p"] = method
            point = presets.dropout(**arguments)
        super().__init__(point.rate, inplace)
        self.point = point
        self.dims = dims

    @property
    def drop(self) -> Drop:
        """The point as it acts now, at the current ``p``."""
        return self.point if self.p == self.point.rate else self.point.at(self.p)

    def forward(self, input: Tensor) -> Tensor:
        spec = self.drop
        if self.dims is not None:
            spec = functional.laid_out(spec, input, self.dims, self.extra_repr())
        mode = self.mode()
        key = self.next_key() if mode == "sample" else None
        return functional.drop(input, spec, mode=mode, key=key, inplace=self.inplace)

    def extra_repr(self) -> str:
        name = self.point.name
        kind = "" if name in ("", "dropout") else f"{name}{f'{self.dims}d' if self.dims else ''}, "
        return kind + super().extra_repr()


def Dropout1d(p: float = 0.5, inplace: bool = False) -> Dropout:
    """torch's Dropout1d: :func:`thinned.presets.spatial` on [n, c, l] or [c, l]."""
    return Dropout(presets.spatial(p), inplace, dims=1)


def Dropout2d(p: float = 0.5, inplace: bool = False) -> Dropout:
    """torch's Dropout2d (SpatialDropout): :func:`thinned.presets.spatial` on [n, c, h, w]."""
    return Dropout(presets.spatial(p), inplace, dims=2)


def Dropout3d(p: float = 0.5, inplace: bool = False) -> Dropout:
    """torch's Dropout3d: :func:`thinned.presets.spatial` on [n, c, d, h, w] or [c, d, h, w]."""
    return Dropout(presets.spatial(p), inplace, dims=3)


def AlphaDropout(p: float = 0.5, inplace: bool = False) -> Dropout:
    """torch's AlphaDropout: :func:`thinned.presets.alpha`. torch ignores ``inplace`` there; this does not."""
    return Dropout(presets.alpha(p), inplace)


def FeatureAlphaDropout(p: float = 0.5, inplace: bool = False) -> Dropout:
    """torch's FeatureAlphaDropout: :func:`thinned.presets.feature_alpha`."""
    return Dropout(presets.feature_alpha(p), inplace)


def GaussianDropout(p: float = 0.5, inplace: bool = False) -> Dropout:
    """:func:`thinned.presets.gaussian`."""
    return Dropout(presets.gaussian(p), inplace)


def DropBlock1d(p: float = 0.1, block: int = 7, inplace: bool = False) -> Dropout:
    """:func:`thinned.presets.dropblock` on [n, c, l] or [c, l]."""
    return Dropout(presets.dropblock(p, block), inplace, dims=1)


def DropBlock2d(p: float = 0.1, block: int | tuple[int, int] = 7, inplace: bool = False) -> Dropout:
    """:func:`thinned.presets.dropblock` on [n, c, h, w]."""
    return Dropout(presets.dropblock(p, block), inplace, dims=2)


def DropBlock3d(p: float = 0.1, block: int | tuple[int, int, int] = 7, inplace: bool = False) -> Dropout:
    """:func:`thinned.presets.dropblock` on [n, c, d, h, w] or [c, d, h, w]."""
    return Dropout(presets.dropblock(p, block), inplace, dims=3)
