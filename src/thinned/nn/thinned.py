"""The host of thinning: a pattern of the whole batch, and the products on both of its sides that
shrink to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from .._errors import InputError, whole
from ..algebra.schedule import Schedule
from ..functional import thinning
from .module import RatedModule


class Thinned(RatedModule, _DropoutNd):
    """Batchwise dropout of a fixed count: of n units about (1 - p) n stay, the same for the whole
    batch.

    While training y = x n / count where kept and 0 where not, so that E[y] = x exactly; evaluation
    is x. ``p`` in [0, 1] or a schedule. ``groups``: the batch in so many parts, each with a pattern
    of its own; the products are cut for each. ``dims``: 0: units stand on the last axis; 1, 2, 3:
    channels stand before so many map axes.

    By itself it computes :func:`thinned.functional.thin_units`. Linked by :func:`thinned.thin` it
    makes the linear layers around it leave out what fell: same numbers, less work. It is another
    regularizer than dropout: examples of a batch do not average over masks, so rates are lower,
    about 0.3 where dropout takes 0.5. The count is (1 - p) n rounded, for wide layers to a multiple
    of 16 (:func:`thinned.functional.thinning.kept_count`); 0.01 of 12 units is none.

    >>> Thinned(0.3, groups=2)
    Thinned(p=0.3, groups=2)

    Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using submatrices".
    Their code rounds down and scales in evaluation.
    """

    def __init__(self, p: float | Schedule = 0.5, groups: int = 1, dims: int = 0) -> None:
        self.groups = whole(groups, "groups", 1)
        self.dims = whole(dims, "dims", 0, 3)
        super().__init__(0.0)
        self.start(p)
        self.linked = False  # does a layer behind take the kept units alone?
        self._pending: tuple[Tensor, int] | None = (
            None  # kept and width, on the way from the layer before to that behind
        )
        self._passed = False

    def draw(self, width: int, input: Tensor, batched: bool = True) -> Tensor | None:
        """For the layer before, which is given ``input``: which of its ``width`` outputs stay,
        [groups, count]; None: all.
        """
        self._pending, self._passed = None, False
        if self.mode() != "sample" or not 0 < thinning.kept_count(width, self._rate) < width:
            return None
        kept = thinning.patterns(
            width, self._rate, self.call_key(), self.groups if batched else 1, input.device
        )
        self._pending = kept, width
        return kept

    def forward(self, input: Tensor) -> Tensor:
        axis = -1 - self.dims
        width, batched = input.shape[axis], input.dim() > 1 + self.dims
        if self._pending is not None and width == self._pending[0].shape[1]:
            self._passed = True
            return input * (self._pending[1] / width)
        if (
            self.linked and (kept := self.draw(width, input, batched)) is not None
        ):  # there is no layer before
            self._passed = True
            parts = input.tensor_split(len(kept)) if len(kept) > 1 else (input,)
            chosen = [rows.index_select(axis, kept[group]) for group, rows in enumerate(parts)]
            return (chosen[0] if len(chosen) == 1 else torch.cat(chosen)) * (width / kept.shape[1])
        if (
            self.mode() != "sample"
            or thinning.kept_count(width, self._rate) == width
            or not input.numel()
        ):
            return input
        key = self.call_key() if self._rate < 1 else None
        return thinning.thin_units(input, self._rate, axis, self.groups if batched else 1, key=key)

    def take(self) -> Tensor | None:
        """For the layer behind: which of its inputs it is given; None where it is given all."""
        pending, passed = self._pending, self._passed
        self._pending, self._passed = None, False
        if pending is not None and not passed:
            raise InputError(
                "a thinned layer gave its kept units, but the Thinned layer behind it did not run; undo thinned.thin(model), "
                "and call it again after the last change of the model"
            )
        return None if pending is None else pending[0]

    def fell(self) -> tuple[int, int] | None:
        """Of the pass that is running: how many units fell, of how many; None where none was cut
        out.
        """
        return (
            None
            if self._pending is None
            else (self._pending[1] - self._pending[0].shape[1], self._pending[1])
        )

    def extra_repr(self) -> str:
        dims = f", dims={self.dims}" if self.dims else ""
        return f"p={self.p}, groups={self.groups}{dims}" + (", linked" if self.linked else "")


class Shrinking:
    """The forward pass of a linear layer or convolution between :class:`Thinned` layers; put there
    by :func:`thinned.thin`.

    ``before`` thins its inputs and ``behind`` its outputs. ``units``: into how many units its
    inputs are divided.
    """

    def __init__(
        self,
        module: nn.Module,
        before: Thinned | None = None,
        behind: Thinned | None = None,
        units: int | None = None,
    ) -> None:
        self.module, self.before, self.behind, self.units = module, before, behind, units

    def __call__(self, input: Tensor) -> Tensor:
        module: Any = self.module
        inputs = None if self.before is None else self.before.take()
        linear = isinstance(module, nn.Linear)
        batched = input.dim() > (1 if linear else len(module.kernel_size) + 1)
        outputs = (
            None
            if self.behind is None
            else self.behind.draw(module.weight.shape[0], input, batched)
        )
        if inputs is None and outputs is None:
            return type(module).forward(module, input)
        product = F.linear if linear else module._conv_forward
        return thinning.in_parts(
            product, input, module.weight, module.bias, inputs, outputs, self.units
        )
