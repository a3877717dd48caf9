"""The host on activations, and torch's names for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from .. import presets
from .._errors import InputError
from ..algebra.drop import Drop
from ..algebra.per import Block
from ..algebra.plan import plan
from ..algebra.scale import Classic
from ..algebra.schedule import SCHEDULES, Schedule
from ..engines.torch import dispatch
from ..engines.torch.dispatch import Impl, PreparedPlan, plan_constants
from ..functional import core, maps, torch_functions
from . import layouts
from .module import RatedModule, disable_fused_kernels

_SHAPES = 64  # how many input shapes a layer remembers


class Dropout(RatedModule, _DropoutNd):
    """Any point on activations; with a number, torch's Dropout.

    ``method``: the rate, the name of a preset with its arguments, or a
    :class:`thinned.algebra.Drop`. A schedule may stand where the rate does, moved by
    :meth:`ModelKey.at` or :func:`thinned.step`. ``inplace``: write the result into the input.
    ``dims``: the axes of the map (1, 2 or 3), which then decides how the input's rank is read, as
    torch's Dropout1d, 2d and 3d do. ``layout``: the input's axes by name where the examples are not
    first, such as ``"t b d"``; ``"(b t) d"`` for examples and tokens flattened into one axis (a
    keyed model reads the number of examples from their ids). ``shard``: (axis, index, count) where
    this rank holds one of ``count`` equal parts of an axis, so that it draws its part of the whole
    tensor's mask. ``impl``: see :func:`thinned.functional.drop`. ``p`` may be changed at any time,
    also in a compiled model.

    >>> Dropout(0.5), Dropout("dropblock", p=0.1, block=5).p
    (Dropout(p=0.5, inplace=False), 0.1)

    It is a torch ``_DropoutNd``, so tools that look for dropout find it.
    """

    def __init__(
        self,
        method: float | str | Drop | Schedule | None = None,
        inplace: bool = False,
        *,
        dims: int | None = None,
        layout: str | None = None,
        shard: tuple[str, int, int] | None = None,
        impl: Impl | None = None,
        **arguments: Any,
    ) -> None:
        moving = [name for name, value in arguments.items() if isinstance(value, SCHEDULES)]
        self.schedule = method if isinstance(method, SCHEDULES) else None
        if isinstance(method, SCHEDULES):
            method = method(0)
        elif moving:
            if not isinstance(method, str) or moving != [presets.strength(method)]:
                raise InputError(
                    f"a schedule stands in the place of the rate, but got it for {', '.join(moving)}"
                )
            self.schedule = arguments[moving[0]]
            arguments[moving[0]] = self.schedule(0)
        if isinstance(method, str):
            point = presets.make(method, **arguments)
        elif isinstance(method, Drop):
            if arguments:
                raise InputError(
                    f"a Drop says everything itself; unexpected {', '.join(arguments)}"
                )
            point = method
        else:
            if method is not None:
                arguments["p"] = method
            point = presets.dropout(**arguments)
        if layout is not None:
            point = layouts.placed(point, layout, dims)
        self.point = point
        self.dims = dims
        self.layout = layout
        self.shard = layouts.check_shard(shard, point) if shard is not None else None
        self.impl: Impl | None = impl
        super().__init__(point.rate, inplace)
        self._unfuse()

    @property
    def p(self) -> float:
        """The rate: of dropping, in [0, 1] (or the strength of a law that drops nothing)."""
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        rate = float(rate)
        self.drop = self.point if rate == self.point.rate else self.point.at(rate)
        self._rate = rate
        self._ready: dict[tuple[int, ...], PreparedPlan] = {}
        self._numbers = plan_constants(self.drop)
        per = self.point.per
        self._blocks = (
            per.size
            if isinstance(per, Block) and per == Block("*", per.size) and self.point.of == "b c *"
            else None
        )
        self._number = torch.tensor(
            rate, dtype=torch.float64, device="cpu"
        )  # for graphs that must not hold the rate

    def repoint(self, point: Drop) -> None:
        """Take another point, at the present rate."""
        self.point = point
        self.p = self._rate
        self._unfuse()

    def _unfuse(self) -> None:
        """A classic layer acts in evaluation, where torch's fused kernels would pass it by."""
        if isinstance(self.point.scale, Classic) and not self._forward_pre_hooks:
            disable_fused_kernels(self)

    def forward(self, input: Tensor) -> Tensor:
        mode = self.mode()
        if mode != "sample" or not input.numel():
            return core.drop(input, self.drop, mode=mode, inplace=self.inplace)
        if torch.compiler.is_compiling() and self.layout is None and self.shard is None:
            if self._numbers is not None:
                return self._traced(input, self._numbers)
            if self._blocks is not None and input.dim() > 2:
                return maps.disout(input, self._number, self._blocks, 0.0, key=self.call_key())  # type: ignore[arg-type]
        if self._rate == 0.0:
            return input
        x = input
        if self.layout is not None and "(" in self.layout:
            x = layouts.unflattened(
                input, self.layout, None if self.owner is None else self.owner.now().sample_ids
            )
        shape = tuple(x.shape)
        ready = self._ready.get(shape)
        if ready is None:
            ready = self._ready[shape] = self._prepare(x)
            if len(self._ready) > _SHAPES:
                self._ready = {shape: ready}
        tensor_key = self.call_key()
        if tensor_key.sample_ids is None and x.dtype.is_floating_point and not ready.plan.identity:
            y = dispatch.sample(x, ready, tensor_key, self.inplace, self.impl)
        else:
            y = core.sample(x, ready, tensor_key, None, self.inplace, self.impl)
        return y if x is input else y.view_as(input)

    def _prepare(self, x: Tensor) -> PreparedPlan:
        spec = self.drop
        if self.dims is not None:
            spec = torch_functions.laid_out(spec, x, self.dims, self.extra_repr)
        if self.shard is not None:
            return layouts.shard_of(spec, tuple(x.shape), *self.shard)
        return dispatch.prepare(plan(spec, tuple(x.shape)))

    def _traced(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Within a graph: the rate is read from a tensor, and sizes may be symbols."""
        spec = (
            self.point
        )  # of the same law and coins as the point at the current rate, and never another object
        if self.dims is not None:
            spec = torch_functions.laid_out(spec, x, self.dims, self.extra_repr)
        return dispatch.sample_in_graph(x, spec, numbers, self.call_key(), self.impl)

    def extra_repr(self) -> str:
        name = self.point.name
        kind = "" if name in ("", "dropout") else f"{name}{f'{self.dims}d' if self.dims else ''}, "
        place = f", layout={self.layout!r}" if self.layout else ""
        return kind + super().extra_repr() + place


def Dropout1d(p: float | Schedule = 0.5, inplace: bool = False) -> Dropout:
    """torch's Dropout1d: :func:`thinned.presets.spatial` on [n, c, l] or [c, l]."""
    return Dropout("spatial", inplace, p=p, dims=1)


def Dropout2d(p: float | Schedule = 0.5, inplace: bool = False) -> Dropout:
    """torch's Dropout2d (SpatialDropout): :func:`thinned.presets.spatial` on [n, c, h, w]."""
    return Dropout("spatial", inplace, p=p, dims=2)


def Dropout3d(p: float | Schedule = 0.5, inplace: bool = False) -> Dropout:
    """torch's Dropout3d: :func:`thinned.presets.spatial` on [n, c, d, h, w] or [c, d, h, w]."""
    return Dropout("spatial", inplace, p=p, dims=3)


def AlphaDropout(p: float | Schedule = 0.5, inplace: bool = False) -> Dropout:
    """torch's AlphaDropout: :func:`thinned.presets.alpha`. torch ignores ``inplace`` there; this
    does not.
    """
    return Dropout("alpha", inplace, p=p)


def FeatureAlphaDropout(p: float | Schedule = 0.5, inplace: bool = False) -> Dropout:
    """torch's FeatureAlphaDropout: :func:`thinned.presets.feature_alpha`."""
    return Dropout("feature-alpha", inplace, p=p)


def GaussianDropout(p: float | Schedule = 0.5, inplace: bool = False) -> Dropout:
    """:func:`thinned.presets.gaussian`."""
    return Dropout("gaussian", inplace, p=p)


def DropBlock1d(p: float | Schedule = 0.1, block: int = 7, inplace: bool = False) -> Dropout:
    """:func:`thinned.presets.dropblock` on [n, c, l] or [c, l]."""
    return Dropout("dropblock", inplace, p=p, block=block, dims=1)


def DropBlock2d(
    p: float | Schedule = 0.1, block: int | tuple[int, int] = 7, inplace: bool = False
) -> Dropout:
    """:func:`thinned.presets.dropblock` on [n, c, h, w]."""
    return Dropout("dropblock", inplace, p=p, block=block, dims=2)


def DropBlock3d(
    p: float | Schedule = 0.1, block: int | tuple[int, int, int] = 7, inplace: bool = False
) -> Dropout:
    """:func:`thinned.presets.dropblock` on [n, c, d, h, w] or [c, d, h, w]."""
    return Dropout("dropblock", inplace, p=p, block=block, dims=3)
