"""What all hosts share: which mode they are in, and whom their masks belong to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..engines.torch.whose import Whose, draw
from ..functional import Mode
from .recompute import Calls, again, note

if TYPE_CHECKING:
    from .keys import ModelKey

# Wrappers that hold a model under a name of their own; a layer's name is what it is without them.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


class Host:
    """A module that draws masks. Beside it stands ``torch.nn.Module``, whose ``training`` it reads."""

    training: bool
    mode_override: Mode | None = None  # set by the context managers in modes.py
    owner: ModelKey | None = None  # the key that this host obeys; None while unkeyed
    stream: int = 0  # of a keyed host
    calls: Calls  # of a keyed host
    frozen: Whose | None = None  # set by modes.frozen: what every call draws
    tape: Any = None  # set by modes.recording and modes.replaying

    def mode(self) -> Mode:
        """``"sample"`` in training, ``"mean"`` in evaluation, unless a context manager says otherwise."""
        return self.mode_override or ("sample" if self.training else "mean")

    def whose(self) -> Whose:
        """Whose noise this call draws; fresh bits of torch's generator in a model without a key."""
        if self.frozen is None and self.tape is None:
            return self.fresh()
        if torch.compiler.is_compiling():
            return self.frozen or self.tape.turn(self)
        return again(self) or (note(self, self.frozen) if self.frozen else self.tape.turn(self))

    def step(self, step: int) -> None:
        """Move to the rate of ``step``; hosts with a schedule do."""

    def fresh(self) -> Whose:
        """:meth:`whose` with nothing frozen or replayed."""
        if self.owner is not None:
            return self.calls.next(self.owner.now(), self.stream, self)
        if torch.compiler.is_compiling():
            return draw()
        return again(self) or draw()  # a segment keeps only what was frozen or replayed; else torch restores its generator


def hosts(model: nn.Module) -> Iterator[tuple[str, Host]]:
    """The hosts in a model with their qualified names, wrappers left out; a shared one once, under its first name."""
    seen: set[int] = set()

    def walk(module: nn.Module, path: tuple[str, ...]) -> Iterator[tuple[str, Host]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        if isinstance(module, Host):
            yield ".".join(path), module
        parallel = type(module).__name__ in _PARALLEL
        for name, child in module.named_children():
            transparent = name in _WRAPPERS or (parallel and name == "module")
            yield from walk(child, path if transparent else (*path, name))

    yield from walk(model, ())
