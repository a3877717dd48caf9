"""Keys: masks that are a function of seed, layer, step and example, not of a stream that all share."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..algebra.key import stream_of
from ..engines.torch import ops
from ..engines.torch.tensor_key import TensorKey, int64_vector, to_int64
from .module import DropoutModule, dropout_modules
from .recompute import Calls


class ModelKey:
    """The key of a model. Make it with :func:`key`, move it with :meth:`at`.

    ``capturable``: keep seed, step and ids at fixed addresses, as a captured CUDA graph needs. Then
    a backward pass has to run before the next :meth:`at`.
    """

    def __init__(
        self,
        model: nn.Module,
        seed: int,
        members: dict[str, DropoutModule],
        capturable: bool = False,
    ) -> None:
        self.seed = seed
        self.step: int | Tensor | None = None
        self.capturable = capturable
        self._model = model
        self._members = members
        self._edges = _edges(model)
        self._now: TensorKey | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The qualified names that the masks belong to."""
        return tuple(self._members)

    def at(self, step: int | Tensor, samples: Any = None) -> None:
        """Say which optimizer step comes now, and which examples the batch holds.

        ``step``: in [0, 2^32), or one step for each example. ``samples``: one id in [0, 2^63) for
        each example (tensor, array or list); None stands for 0, 1, 2 ... Calls are counted from 0
        again, so call it before each micro-batch.

        Raises :class:`thinned.InputError` for a bad step or bad ids, or where the layers are not
        those that were keyed.
        """
        if (
            not isinstance(step, int)
            and getattr(step, "ndim", None) in (0, None)
            and hasattr(step, "__index__")
        ):
            step = operator.index(step)
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        with ops.plainly():  # what is kept here is used beyond the modes that surround this call
            now = self._tensor_key(step, samples, device)
        self._check_layers()
        if not isinstance(step, int) and any(
            getattr(h, "schedule", None) is not None for h in self._members.values()
        ):
            raise InputError(
                "a schedule needs one step for the whole batch, but got one for each example; set rates by hand"
            )
        self.step = step
        self._now = self._kept(now)
        for host in self._members.values():
            host.calls.reset()
            if isinstance(step, int):
                host.step(step)

    def _tensor_key(self, step: int | Tensor, samples: Any, device: torch.device) -> TensorKey:
        sample_ids = None if samples is None else _integers("samples", samples, 63, device)
        if isinstance(step, int):
            if not 0 <= step < 1 << 32:
                raise InputError(f"step has to be in [0, 2^32), but got {step}")
            return TensorKey(torch.tensor([to_int64(self.seed), step], device=device), sample_ids)
        steps = _integers("step", step, 32, device)
        if sample_ids is not None and len(sample_ids) != len(steps):
            raise InputError(
                f"step and samples have to be of one length, but got {len(steps)} and {len(sample_ids)}"
            )
        sample_ids = torch.stack(
            (torch.arange(len(steps), device=device) if sample_ids is None else sample_ids, steps)
        )
        return TensorKey(torch.tensor([to_int64(self.seed)], device=device), sample_ids)

    def _kept(self, new: TensorKey) -> TensorKey:
        old = self._now
        if (
            not self.capturable
            or old is None
            or old.seed_step.shape != new.seed_step.shape
            or old.seed_step.device != new.seed_step.device
        ):
            return new
        if (old.sample_ids is None) != (new.sample_ids is None) or (
            old.sample_ids is not None and old.sample_ids.shape != new.sample_ids.shape  # type: ignore[union-attr]
        ):
            return new
        old.seed_step.copy_(new.seed_step)
        if old.sample_ids is not None:
            old.sample_ids.copy_(new.sample_ids)  # type: ignore[arg-type]
        return old

    def now(self) -> TensorKey:
        """Seed, step and examples of this step. Raises :class:`thinned.InputError` before the first
        :meth:`at`.
        """
        if self._now is None:
            raise InputError(
                "this model has a key, but no step yet; call key.at(step) before the forward pass"
            )
        return self._now

    def remove(self) -> None:
        """Give the masks back to torch's generator."""
        for host in self._members.values():
            host.owner = None
        self._members = {}

    def state_dict(self) -> dict[str, Any]:
        """Seed and step, for a checkpoint."""
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint: the seed, and the step without ids."""
        self.seed = int(state["seed"])
        if state["step"] is not None:
            self.at(state["step"])

    def _check_layers(self) -> None:
        if not self._members:
            raise InputError(
                "this key was removed from its model; give it a new one with thinned.key(model, seed)"
            )
        if all(
            len(children) == len(was) and all(children.get(n) is c for n, c in was)
            for children, was in self._edges
        ):
            return
        now = dict(dropout_modules(self._model))
        if {n: id(h) for n, h in now.items()} != {n: id(h) for n, h in self._members.items()}:
            gone, come = (
                sorted(self._members.keys() - now.keys()),
                sorted(now.keys() - self._members.keys()),
            )
            raise InputError(
                f"the model's dropout layers changed after it was given its key (gone: {', '.join(gone) or 'none'}; new: "
                f"{', '.join(come) or 'none, but others stand under these names'}); call key.remove() and "
                "thinned.key(model, seed) again, and the layers that kept their names keep their masks"
            )
        self._edges = _edges(self._model)


def _edges(model: nn.Module) -> list[tuple[dict[str, Any], list[tuple[str, Any]]]]:
    """Every parent's children as they stand, to see quickly whether a model was changed."""
    return [(m._modules, list(m._modules.items())) for m in model.modules() if m._modules]


def _integers(name: str, values: Any, bits: int, device: torch.device) -> Tensor:
    given = int64_vector(name, values)
    if given.numel() and given.device.type == "cpu":  # on another device a look would wait for it
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >> bits:
            raise InputError(
                f"{name} has to hold ids of at least 0 and below 2^{bits}, but got {low if low < 0 else high}"
            )
    return given.to(device, copy=True)  # a copy: the caller may reuse the memory


def key(model: nn.Module, seed: int = 0, *, capturable: bool = False) -> ModelKey:
    """Give every host in ``model`` a stream of its own under ``seed``, and return the key that
    moves them.

    From then on the masks depend on (seed, layer's name, call, step, example) alone: not on the
    batch's order or size, the number of ranks, recomputation or compilation, nor on torch's
    generator. Layers are known by their names in ``model`` (without the prefixes of DDP, FSDP,
    ``torch.compile`` and checkpoint wrappers), so key the model itself.

    Raises :class:`thinned.InputError` where the model has no host of ours, or has a key already.
    """
    named = dict(dropout_modules(model))
    if not named:
        raise InputError(
            "this model has no thinned dropout to give a key to; build it with thinned.nn.Dropout"
        )
    for name, host in named.items():
        if host.owner is not None:
            raise InputError(
                f"layer {name!r} has a key already (seed {host.owner.seed}); use thinned.key_of(model), or call its "
                "remove() first"
            )
    made = ModelKey(model, int(seed), named, capturable)
    for name, host in named.items():
        host.owner, host.stream, host.calls = made, to_int64(stream_of(name)), Calls()
    return made


def step(model: nn.Module, step: int) -> None:
    """Move the schedules in a model to ``step``. A keyed model needs it not: its key's ``at`` does
    so.
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise InputError(f"step has to be a whole number of at least 0, but got {step!r}")
    for _, host in dropout_modules(model):
        host.step(step)


def key_of(model: nn.Module) -> ModelKey:
    """The key that a model was given, also of a copied or unpickled one.

    Raises :class:`thinned.InputError` where it has none.
    """
    for _, host in dropout_modules(model):
        if host.owner is not None:
            return host.owner
    raise InputError("this model has no key; give it one with thinned.key(model, seed)")
