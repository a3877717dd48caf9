"""What all hosts share: which mode they are in, and whom their masks belong to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .._errors import probability
from ..algebra.schedule import SCHEDULES, Schedule
from ..engines.torch.tensor_key import TensorKey, random_key
from ..functional import Mode
from ..functional.core import Rate
from .recompute import Calls, again, note

if TYPE_CHECKING:
    from .keys import ModelKey

# Wrappers that hold a model under a name of their own; a layer's name is what it is without them.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


class DropoutModule:
    """A module that draws masks. Beside it stands ``torch.nn.Module``, whose ``training`` it reads."""

    training: bool
    mode_override: Mode | None = None  # set by the context managers in modes.py
    owner: ModelKey | None = None  # the key that this host obeys; None while unkeyed
    stream: int = 0  # of a keyed host
    calls: Calls  # of a keyed host
    frozen: TensorKey | None = None  # set by modes.frozen: what every call draws
    tape: Any = None  # set by modes.recording and modes.replaying

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy, which no context manager of the original holds."""
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        left = {"mode_override", "frozen", "tape"}
        state: Any = self.__reduce_ex__(4)[2]
        twin.__dict__.update({k: copy.deepcopy(v, memo) for k, v in state.items() if k not in left})
        return twin

    def mode(self) -> Mode:
        """``"sample"`` in training, ``"mean"`` in evaluation, unless a context manager says
        otherwise.
        """
        return self.mode_override or ("sample" if self.training else "mean")

    def call_key(self) -> TensorKey:
        """Whose noise this call draws; fresh bits of torch's generator in a model without a key."""
        if self.frozen is None and self.tape is None:
            return self.new_key()
        if torch.compiler.is_compiling():
            return self.frozen or self.tape.turn(self)
        return again(self) or (note(self, self.frozen) if self.frozen else self.tape.turn(self))

    def step(self, step: int) -> None:
        """Move to the rate of ``step``; hosts with a schedule do."""

    def new_key(self) -> TensorKey:
        """:meth:`call_key` with nothing frozen or replayed."""
        if self.owner is not None:
            return self.calls.next(self.owner.now(), self.stream, self)
        if torch.compiler.is_compiling():
            return random_key()
        return (
            again(self) or random_key()
        )  # a segment keeps only what was frozen or replayed; else torch restores its generator


def disable_fused_kernels(module: nn.Module) -> Any:
    """Keep torch's fused kernels, which read weights past a layer, from running a model that
    ``module`` stands in.

    torch refuses its fused transformer layer where any module inside has a hook. Returns the hook's
    handle.
    """
    return module.register_forward_pre_hook(_nothing)


def _nothing(module: nn.Module, args: Any) -> None:
    return None


class RatedModule(DropoutModule):
    """A host with a rate, which a schedule may move. Abstract."""

    schedule: Schedule | None = None

    def start(self, p: float | Schedule) -> None:
        """Take the first rate."""
        self.schedule = p if isinstance(p, SCHEDULES) else None
        self.p = p(0) if isinstance(p, SCHEDULES) else p

    def step(self, step: int) -> None:
        """Take the rate that the schedule has at ``step``; nothing without one."""
        if self.schedule is not None and (rate := self.schedule(step)) != self.p:
            self.p = rate

    @property
    def p(self) -> float:
        """The rate, in [0, 1]."""
        return self._rate

    @p.setter
    def p(self, rate: float) -> None:
        self._rate = probability(rate)
        self._number = torch.tensor(self._rate, dtype=torch.float64, device="cpu")

    def now(self) -> Rate:
        """The rate; as a tensor in a graph that must not hold it."""
        return (
            self._number
            if self.schedule is not None and torch.compiler.is_compiling()
            else self._rate
        )


def dropout_modules(model: nn.Module) -> Iterator[tuple[str, DropoutModule]]:
    """The hosts in a model with their qualified names, wrappers left out; a shared one once, under
    its first name.
    """
    seen: set[int] = set()

    def walk(module: nn.Module, path: tuple[str, ...]) -> Iterator[tuple[str, DropoutModule]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        if isinstance(module, DropoutModule):
            yield ".".join(path), module
        parallel = type(module).__name__ in _PARALLEL
        for name, child in module.named_children():
            transparent = name in _WRAPPERS or (parallel and name == "module")
            yield from walk(child, path if transparent else (*path, name))

    yield from walk(model, ())
