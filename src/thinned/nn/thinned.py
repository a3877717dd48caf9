"""Thinning: one pattern for the whole batch, and linear layers that shrink to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from .._errors import InputError, whole
from ..algebra.schedule import Schedule
from ..engines.torch import exported
from ..functional import thinning
from .module import RatedModule


class _Pass:
    """What a forward pass hands from the layer before to the layer after.

    An object of its own, because setting attributes of a module takes microseconds.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the kept units."""
        self.kept: Tensor | None = None  # [groups, count]
        self.width = 0  # the number of units
        self.ran = False  # whether the dropout layer ran since they were drawn
        self.is_zeroed = False  # whether the layer before found that leaving out does not pay
        self.dropped: tuple[int, int] | None = None  # (number of dropped units, number of units)

    def take(self) -> tuple[Tensor | None, bool]:
        """Return the kept units and whether the dropout layer ran, and forget them."""
        kept, ran = self.kept, self.ran
        self.clear()
        return kept, ran


class Thinned(RatedModule, _DropoutNd):
    """Thinning: batchwise dropout of a fixed number of units, which linear layers need not compute.

    Input: [b, ..., n] with the units on the last axis, or [b, n, *map] with ``dims`` map axes.
    Output: the same shape; the input itself in evaluation. Of n units about (1 - p) n are kept, the
    same for the whole batch. While training y = x n / count where kept and 0 where dropped, so that
    E[y] = x exactly. The count is (1 - p) n rounded, for wide layers to a multiple of 16
    (:func:`thinned.functional.thinning.kept_count`), so 0.01 of 12 units drops none.

    By itself it computes :func:`thinned.functional.thin_units`. Linked by :func:`thinned.thin` it
    makes the linear layers around it leave out the dropped units: same numbers, less work. It is
    another regularizer than dropout: the examples of a batch do not average over masks, so rates
    are lower, about 0.3 where dropout takes 0.5.

    Args:
        p: The part of the units to drop, in [0, 1], or a schedule of it.
        groups: The number of parts of the batch that have a pattern of their own; the products are
            cut for each part.
        dims: 0 where the units are on the last axis; 1, 2 or 3 where channels are followed by this
            number of map axes.

    Raises:
        InputError: Where an argument breaks a rule.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Thinned(0.3, groups=2)
        Thinned(p=0.3, groups=2)

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices". Their code rounds down and scales in evaluation.
    """

    def __init__(self, p: float | Schedule = 0.5, groups: int = 1, dims: int = 0) -> None:
        self.groups = whole(groups, "groups", 1)
        self.dims = whole(dims, "dims", 0, 3)
        super().__init__(0.0)
        self.set_initial_rate(p)
        self.linked = False  # whether the layer after this one takes the kept units alone
        # the weights of the linked layers for each unit; 0: units are left out whatever they save
        self.weights_per_unit = 0
        self._pass = _Pass()

    def pays(self, width: int, rows: int) -> bool:
        """Return whether leaving out the dropped units costs less than multiplying zeros.

        Args:
            width: The number of units.
            rows: The number of rows of the products: examples, tokens, or positions of maps.

        Returns:
            False where layers are so narrow or batches so small that copying the kept weights
            takes longer; the layer then computes :func:`thinned.functional.thin_units`, with the
            same kept units.
        """
        return not self.weights_per_unit or thinning.pays(
            width, self.weights_per_unit, rows, self._rate
        )

    def draw_kept_units(self, width: int, input: Tensor, batched: bool = True) -> Tensor | None:
        """Draw the kept units for the layer before this one, which calls it on its own input.

        Args:
            width: The number of outputs of that layer.
            input: Its input; its device and batch are used.
            batched: Whether the input has a batch axis, so that groups apply.

        Returns:
            The indices of the kept units, int64 [groups, count]; None where all are kept or it does
            not pay.
        """
        self._pass.clear()
        self._check_recorder()
        rows = input.numel() // max(1, input.shape[-1 - self.dims])
        if not self.pays(width, rows):
            self._pass.is_zeroed = True
            return None
        if self.mode() != "sample" or not 0 < thinning.kept_count(width, self._rate) < width:
            return None
        kept = thinning.draw_patterns(
            width, self._rate, self.call_key(), self.groups if batched else 1, input.device
        )
        self._pass.kept, self._pass.width = kept, width
        self._pass.dropped = width - kept.shape[1], width
        return kept

    def forward(self, input: Tensor) -> Tensor:
        self._check_recorder()
        axis = -1 - self.dims
        width, batched = input.shape[axis], input.dim() > 1 + self.dims
        found = self._pass
        if found.kept is not None and width == found.kept.shape[1]:
            found.ran = True
            return input * (found.width / width)
        cuts = self.linked and not found.is_zeroed
        found.clear()
        # where no layer before has drawn, the input is cut here
        if cuts and (kept := self.draw_kept_units(width, input, batched)) is not None:
            found.ran = True
            parts = input.tensor_split(len(kept)) if len(kept) > 1 else (input,)
            chosen = [rows.index_select(axis, kept[group]) for group, rows in enumerate(parts)]
            return (chosen[0] if len(chosen) == 1 else torch.cat(chosen)) * (width / kept.shape[1])
        if self.mode() != "sample" or not input.numel():
            return input
        count = thinning.kept_count(width, self._rate)
        if count == width:
            return input
        found.dropped = width - count, width
        if count == 0:
            return thinning.thin_units(input, 1.0, axis)
        groups = self.groups if batched else 1
        return thinning.zero_units(input, count, self.call_key(), axis, groups)

    def _check_recorder(self) -> None:
        """Raise where a graph would hold sizes that depend on the rate, before they are read."""
        if self.mode() == "sample" and self._rate and (recorder := exported.recorder()):
            raise exported.refused(recorder, f"the draws of {type(self).__name__}")

    def take_kept_units(self) -> Tensor | None:
        """Return the kept units to the layer after this one, and forget them.

        Returns:
            The indices of the inputs that it is given, int64 [groups, count]; None for all.

        Raises:
            InputError: Where the units were drawn but this layer did not run.
        """
        kept, ran = self._pass.take()
        if kept is not None and not ran:
            raise InputError(
                "a thinned layer computed its kept units alone, but the Thinned layer after it did "
                "not run; undo thinned.thin(model), and call it again after the last change of the "
                "model"
            )
        return kept

    def dropped_units(self) -> tuple[int, int] | None:
        """Count the dropped units of the pass that is running.

        Returns:
            (number of dropped units, number of units); None where none is dropped.
        """
        return self._pass.dropped

    def extra_repr(self) -> str:
        dims = f", dims={self.dims}" if self.dims else ""
        return f"p={self.p}, groups={self.groups}{dims}" + (", linked" if self.linked else "")


class Shrinking:
    """The forward pass of a linear layer or convolution between :class:`Thinned` layers.

    :func:`thinned.thin` installs it. ``before`` drops inputs of the layer and ``behind`` drops
    outputs. ``units`` is the number of units that the inputs are divided into.
    """

    def __init__(
        self,
        module: nn.Module,
        before: Thinned | None = None,
        behind: Thinned | None = None,
        units: int | None = None,
    ) -> None:
        self.module, self.before, self.behind, self.units = module, before, behind, units

    @property
    def action(self) -> str:
        """What the layer does now, for the printed change."""
        sides = (("inputs", self.before), ("outputs", self.behind))
        kept = " and ".join(side for side, layer in sides if layer is not None)
        return f"multiplies the kept {kept} only"

    def __call__(self, input: Tensor) -> Tensor:
        module: Any = self.module
        inputs = None if self.before is None else self.before.take_kept_units()
        linear = isinstance(module, nn.Linear)
        batched = input.dim() > (1 if linear else len(module.kernel_size) + 1)
        outputs = (
            None
            if self.behind is None
            else self.behind.draw_kept_units(module.weight.shape[0], input, batched)
        )
        if inputs is None and outputs is None:
            return type(module).forward(module, input)
        product = F.linear if linear else module._conv_forward
        return thinning.grouped_product(
            product, input, module.weight, module.bias, inputs, outputs, self.units
        )
