"""Context managers that say what the hosts of a model do, and put everything back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .._errors import InputError
from ..engines.torch.tensor_key import TensorKey
from ..functional import Mode
from .module import DropoutModule, disable_fused_kernels, dropout_modules
from .recompute import note


@contextmanager
def _with(model: nn.Module, attribute: str, values: dict[str, Any]) -> Iterator[None]:
    before = [(host, getattr(host, attribute)) for _, host in dropout_modules(model)]
    for name, host in dropout_modules(model):
        setattr(host, attribute, values[name])
    try:
        yield
    finally:
        for host, was in before:
            setattr(host, attribute, was)


def _mode(model: nn.Module, mode: Mode) -> AbstractContextManager[None]:
    return _with(model, "mode_override", {name: mode for name, _ in dropout_modules(model)})


def sampling(model: nn.Module) -> AbstractContextManager[None]:
    """Within: hosts draw masks whatever ``model.training`` says. Monte Carlo dropout that leaves
    BatchNorm alone.

    The mean of many passes is the prediction, their spread the model's uncertainty: Gal and
    Ghahramani 2016, "Dropout as a Bayesian approximation", section 4.
    """
    return _sampling(model)


@contextmanager
def _sampling(model: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        for _, host in dropout_modules(model):
            if isinstance(host, nn.Module):
                stack.callback(disable_fused_kernels(host).remove)
        with _mode(model, "sample"):
            yield


def off(model: nn.Module) -> AbstractContextManager[None]:
    """Within: hosts return their input, not even scaled."""
    return _mode(model, "off")


def frozen(model: nn.Module) -> AbstractContextManager[None]:
    """Within: every host draws the same noise in all its calls; one thinned network, for as long as
    it is wanted.

    In a keyed model the noise of the current step and its call 0; else 64 bits of torch's generator
    for each host.
    """
    return _with(model, "frozen", {name: _first(host) for name, host in dropout_modules(model)})


def _first(host: DropoutModule) -> TensorKey:
    return (
        host.new_key() if host.owner is None else TensorKey(*host.owner.now()[:2], host.stream, 0)
    )


@dataclass
class Tape:
    """Whose noise each layer drew, call by call: enough to draw all of it again. Read with
    :func:`recording`.
    """

    drawn: dict[str, list[TensorKey]] = field(default_factory=dict)

    def state_dict(self) -> dict[str, list[tuple[torch.Tensor, torch.Tensor | None, int, int]]]:
        """Plain tuples and tensors, for ``torch.save`` and ``weights_only`` loading."""
        return {name: [tuple(w) for w in calls] for name, calls in self.drawn.items()}  # type: ignore[misc]

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Tape:
        """Read what :meth:`state_dict` gave."""
        return cls({name: [TensorKey(*w) for w in calls] for name, calls in state.items()})


class _Recorder:
    def __init__(self, tape: Tape, name: str) -> None:
        self.calls = tape.drawn.setdefault(name, [])

    def turn(self, host: DropoutModule) -> TensorKey:
        tensor_key = host.new_key()
        self.calls.append(tensor_key)
        return (
            tensor_key if host.owner is not None else note(host, tensor_key)
        )  # a keyed host has noted it


class _Player:
    def __init__(self, tape: Tape, name: str) -> None:
        self.name, self.calls, self.place = name, tape.drawn.get(name, []), 0

    def turn(self, host: DropoutModule) -> TensorKey:
        if self.place >= len(self.calls):
            raise InputError(
                f"layer {self.name!r} is called {self.place + 1} times, but the tape holds {len(self.calls)} of its calls; "
                "replay exactly what was recorded"
            )
        self.place += 1
        return note(host, self.calls[self.place - 1])


@contextmanager
def recording(model: nn.Module) -> Iterator[Tape]:
    """Within: what every host draws is written on the tape that this yields, a key a call and no
    mask.

    Consistent dropout for policy gradients (Hausknecht and Wagener 2022): record the rollout, then
    compute the log-probabilities of the update under :func:`replaying`, so that the ratio is 1 at
    the first step.
    """
    tape = Tape()
    with _with(model, "tape", {name: _Recorder(tape, name) for name, _ in dropout_modules(model)}):
        yield tape


def replaying(model: nn.Module, tape: Tape) -> AbstractContextManager[None]:
    """Within: hosts draw what the tape says, call by call, from its start.

    Raises :class:`thinned.InputError` where a layer is called more often than it was recorded.
    """
    return _with(model, "tape", {name: _Player(tape, name) for name, _ in dropout_modules(model)})
