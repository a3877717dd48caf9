"""What single units do: which are dead, which always or never fall, and whether masks repeat."""

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
_CELLS = 4096  # of a mask, to be compared with the next
CHANCE = 1e-6  # below it, units that always or never fall and masks that are equal are no chance


@dataclass
class Fallen:
    """How often each unit of one site fell, and whether its masks repeat. Kept from sample to
    sample.
    """

    fell: Tensor | None = None  # [units], of how many values
    of: Tensor | None = None
    passes: int = 0
    last: Tensor | None = (
        None  # -1 where nothing can be seen, else 0 or 1: the first cells of the last mask
    )
    repeats: int = 0

    def see(self, given: Tensor, result: Tensor, axis: int, elementwise: bool) -> None:
        alive = given != 0
        dropped = alive & (result == 0)
        fell, of = _by_unit(dropped, axis), _by_unit(alive, axis)
        if self.fell is None or self.of is None or self.fell.shape != fell.shape:
            self.fell, self.of, self.passes = torch.zeros_like(fell), torch.zeros_like(of), 0
        self.fell, self.of, self.passes = self.fell + fell, self.of + of, self.passes + 1
        if elementwise:
            self._compare(alive.flatten()[:_CELLS], dropped.flatten()[:_CELLS])

    def _compare(self, alive: Tensor, dropped: Tensor) -> None:
        mask = torch.where(alive, dropped.to(torch.int8), -1)
        last, self.last = self.last, mask
        if last is None or last.shape != mask.shape:
            self.repeats = 0
            return
        seen = (last >= 0) & (mask >= 0)
        cells, share = int(seen.sum()), float(mask[seen].double().mean()) if seen.any() else 0.0
        telling = (
            share**2 + (1 - share) ** 2
        ) ** cells < CHANCE  # for masks of their own to be equal
        self.repeats = self.repeats + 1 if telling and bool((last[seen] == mask[seen]).all()) else 0

    def record(self, rate: float | None) -> dict[str, int]:
        """Units, and how many of them fell always or never where chance does not explain it."""
        if self.fell is None or self.of is None:
            return {}
        found = {"units": len(self.fell), "repeats": self.repeats, "passes": self.passes}
        if rate is not None and 0 < rate < 1:
            seen = self.of > 0
            always, never = seen & (self.fell == self.of), seen & (self.fell == 0)
            # A unit's values may share a coin, a pass never does.
            found["always"] = int(always.sum()) if len(seen) * rate**self.passes < CHANCE else 0
            found["never"] = (
                int(never.sum()) if len(seen) * (1 - rate) ** self.passes < CHANCE else 0
            )
        return found


def _by_unit(x: Tensor, axis: int) -> Tensor:
    others = [a for a in range(x.dim()) if a != axis % x.dim()]
    return (x.sum(others) if others else x.long()).cpu()


@dataclass
class Units:
    """The units of all sites, from sample to sample."""

    fallen: dict[str, Fallen] = field(default_factory=dict)
    zero: dict[str, Tensor] = field(
        default_factory=dict
    )  # [units]: in how many samples on end a unit was 0 throughout

    def relu(self, name: str, result: Tensor, axis: int) -> None:
        alive = _by_unit(result > 0, axis) > 0
        before = self.zero.get(name)
        if before is None or before.shape != alive.shape:
            before = torch.zeros(alive.shape, dtype=torch.long)
        self.zero[name] = torch.where(alive, 0, before + 1)

    def dead(self, window: int) -> dict[str, list[int]]:
        """For each ReLU: how many units were 0 for all examples of the last ``window`` samples, and
        how many it has.
        """
        return {name: [int((zero >= window).sum()), len(zero)] for name, zero in self.zero.items()}

    def state_dict(self) -> dict[str, Any]:
        fallen = {name: dict(vars(one)) for name, one in self.fallen.items()}
        return {"fallen": fallen, "zero": dict(self.zero)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fallen = {name: Fallen(**one) for name, one in state["fallen"].items()}
        self.zero = dict(state["zero"])


class Functions(TorchFunctionMode):
    """See ReLUs and functional dropout as they are called.

    ``within``: the name of the module that runs. A second call in the same module has "#2" behind
    its name.
    """

    def __init__(self, units: Units, within: Callable[[], str], training: bool) -> None:
        super().__init__()
        self.units, self.within, self.training = units, within, training
        self.calls: dict[str, int] = {}
        self.middle = (
            -1
        )  # where the units of three dimensions are: last in sequences, second behind a convolution

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONV1D:
            self.middle = 1
        elif func is F.linear:
            self.middle = -1
        if self.training and func in (F.dropout, torch.dropout, torch.dropout_):
            given = args[0] if args else kwargs["input"]
            copied = (
                given.clone()
                if (func is torch.dropout_ or kwargs.get("inplace") or True in args[3:4])
                else given
            )
            result = func(*args, **kwargs)
            on = args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))
            rate = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            if on and rate > 0:
                self.dropped(copied, result, True)
            return result
        result = func(*args, **kwargs)
        if (
            not self.training
            and func in RELUS
            and isinstance(result, Tensor)
            and self._kills(func, args, kwargs)
        ):
            self.units.relu(self._named(), result, self._axis(result))
        return result

    def dropped(self, given: Tensor, result: Tensor, elementwise: bool) -> None:
        """Note what fell in the module that runs."""
        if isinstance(result, Tensor) and given.shape == result.shape and given.dim():
            one = self.units.fallen.setdefault(self._named(), Fallen())
            one.see(given, result, self._axis(given), elementwise)

    def _named(self) -> str:
        name = self.within()
        self.calls[name] = self.calls.get(name, 0) + 1
        return name if self.calls[name] == 1 else f"{name}#{self.calls[name]}"

    def _axis(self, x: Tensor) -> int:
        return self.middle if x.dim() == 3 else 1 if x.dim() > 1 else 0

    @staticmethod
    def _kills(func: Any, args: Any, kwargs: Any) -> bool:
        """Has the function a floor of 0? hardtanh has another."""
        floor = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        return func is not F.hardtanh or floor == 0


__all__ = ["CHANCE", "Fallen", "Functions", "Units"]
