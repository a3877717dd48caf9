"""What single units do: which are dead, always or never dropped, and whether masks repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

RELUS = {
    F.relu,
    F.relu_,
    torch.relu,
    torch.relu_,
    Tensor.relu,
    Tensor.relu_,
    F.relu6,
    F.threshold,
    F.hardtanh,
}
_CONV1D = {F.conv1d, torch.conv1d}
_COMPARED = 4096  # mask entries that are compared with those of the next mask
CHANCE = 1e-6  # equal masks, and units always or never dropped, are reported below this probability


@dataclass
class DropCounts:
    """How often each unit of one site was dropped, over all samples, and whether its masks repeat.

    ``dropped``, ``total``: [units], the number of dropped values and of all values. ``last_mask``:
    the first entries of the last mask: 1 dropped, 0 kept, -1 unknown because the input was 0.
    ``repeats``: the number of equal masks in a row before the last one.
    """

    dropped: Tensor | None = None
    total: Tensor | None = None
    passes: int = 0
    last_mask: Tensor | None = None
    repeats: int = 0

    def update(self, x: Tensor, result: Tensor, axis: int, elementwise: bool) -> None:
        """Count one pass; ``axis`` is that of the units."""
        nonzero = x != 0
        mask = nonzero & (result == 0)
        dropped, total = _by_unit(mask, axis), _by_unit(nonzero, axis)
        if self.dropped is None or self.total is None or self.dropped.shape != dropped.shape:
            self.dropped, self.total = torch.zeros_like(dropped), torch.zeros_like(total)
            self.passes = 0
        self.dropped, self.total = self.dropped + dropped, self.total + total
        self.passes += 1
        if elementwise:
            self._compare(nonzero.flatten()[:_COMPARED], mask.flatten()[:_COMPARED])

    def _compare(self, nonzero: Tensor, dropped: Tensor) -> None:
        mask = torch.where(nonzero, dropped.to(torch.int8), -1)
        last, self.last_mask = self.last_mask, mask
        if last is None or last.shape != mask.shape:
            self.repeats = 0
            return
        known = (last >= 0) & (mask >= 0)
        entries = int(known.sum())
        share = float(mask[known].double().mean()) if entries else 0.0
        # the probability that two independent masks of this rate are equal
        by_chance = (share**2 + (1 - share) ** 2) ** entries
        equal = bool((last[known] == mask[known]).all())
        self.repeats = self.repeats + 1 if by_chance < CHANCE and equal else 0

    def record(self, rate: float | None) -> dict[str, int]:
        """The number of units, and how many were dropped always or never beyond chance."""
        if self.dropped is None or self.total is None:
            return {}
        units = len(self.dropped)
        found = {"units": units, "repeats": self.repeats, "passes": self.passes}
        if rate is not None and 0 < rate < 1:
            known = self.total > 0
            always = known & (self.dropped == self.total)
            never = known & (self.dropped == 0)
            # The values of a unit in one pass may share a mask entry; those of two passes do not.
            found["always"] = int(always.sum()) if units * rate**self.passes < CHANCE else 0
            found["never"] = int(never.sum()) if units * (1 - rate) ** self.passes < CHANCE else 0
        return found


def _by_unit(x: Tensor, axis: int) -> Tensor:
    others = [a for a in range(x.dim()) if a != axis % x.dim()]
    return (x.sum(others) if others else x.long()).cpu()


@dataclass
class Units:
    """The units of all sites, over all samples.

    ``zero_streaks``: for each ReLU, [units], in how many samples in a row the unit was 0 for all
    examples.
    """

    drop_counts: dict[str, DropCounts] = field(default_factory=dict)
    zero_streaks: dict[str, Tensor] = field(default_factory=dict)

    def update_relu(self, name: str, result: Tensor, axis: int) -> None:
        """Count the output of a ReLU; ``axis`` is that of the units."""
        alive = _by_unit(result > 0, axis) > 0
        before = self.zero_streaks.get(name)
        if before is None or before.shape != alive.shape:
            before = torch.zeros(alive.shape, dtype=torch.long)
        self.zero_streaks[name] = torch.where(alive, 0, before + 1)

    def dead(self, window: int) -> dict[str, list[int]]:
        """For each ReLU [dead, all] units; dead is 0 for all examples of ``window`` samples."""
        return {
            name: [int((streaks >= window).sum()), len(streaks)]
            for name, streaks in self.zero_streaks.items()
        }

    def state_dict(self) -> dict[str, Any]:
        counts = {name: dict(vars(count)) for name, count in self.drop_counts.items()}
        return {"drop_counts": counts, "zero_streaks": dict(self.zero_streaks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        counts = state["drop_counts"]
        self.drop_counts = {name: DropCounts(**count) for name, count in counts.items()}
        self.zero_streaks = dict(state["zero_streaks"])


class UnitObserver(TorchFunctionMode):
    """Observes ReLUs and functional dropout as they are called.

    ``running_module`` returns the name of the module that runs. A second call in the same module
    has "#2" after the name.
    """

    def __init__(self, units: Units, running_module: Callable[[], str], training: bool) -> None:
        super().__init__()
        self.units, self.running_module, self.training = units, running_module, training
        self.calls: dict[str, int] = {}
        # the axis of units in three dimensions: last in sequences, second after a convolution
        self.axis_of_three = -1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONV1D:
            self.axis_of_three = 1
        elif func is F.linear:
            self.axis_of_three = -1
        if self.training and func in (F.dropout, torch.dropout, torch.dropout_):
            return self._call_dropout(func, args, kwargs)
        result = func(*args, **kwargs)
        if (
            not self.training
            and func in RELUS
            and isinstance(result, Tensor)
            and self._has_floor_of_zero(func, args, kwargs)
        ):
            self.units.update_relu(self._call_name(), result, self._unit_axis(result))
        return result

    def _call_dropout(self, func: Any, args: Any, kwargs: Any) -> Any:
        x = args[0] if args else kwargs["input"]
        inplace = func is torch.dropout_ or kwargs.get("inplace") or True in args[3:4]
        before = x.clone() if inplace else x
        result = func(*args, **kwargs)
        on = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
        rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
        if on and rate > 0:
            self.count_dropped(before, result, True)
        return result

    def count_dropped(self, x: Tensor, result: Tensor, elementwise: bool) -> None:
        """Count what is dropped in the module that runs."""
        if isinstance(result, Tensor) and x.shape == result.shape and x.dim():
            counts = self.units.drop_counts.setdefault(self._call_name(), DropCounts())
            counts.update(x, result, self._unit_axis(x), elementwise)

    def _call_name(self) -> str:
        name = self.running_module()
        self.calls[name] = self.calls.get(name, 0) + 1
        return name if self.calls[name] == 1 else f"{name}#{self.calls[name]}"

    def _unit_axis(self, x: Tensor) -> int:
        return self.axis_of_three if x.dim() == 3 else 1 if x.dim() > 1 else 0

    @staticmethod
    def _has_floor_of_zero(func: Any, args: Any, kwargs: Any) -> bool:
        """hardtanh may have another floor."""
        floor = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        return func is not F.hardtanh or floor == 0


__all__ = ["CHANCE", "DropCounts", "UnitObserver", "Units"]
