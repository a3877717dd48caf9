"""Context managers that set what the dropout modules of a model do, and undo it at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .._errors import InputError
from ..algebra.key import CONTRACT, check_contract
from ..engines.torch.tensor_key import TensorKey, mapped_levels
from ..functional import Mode
from .module import DropoutModule, disable_fused_kernels, disable_nested_tensors, dropout_modules
from .recompute import remember_key


@contextmanager
def _with_attribute(model: nn.Module, attribute: str, values: dict[str, Any]) -> Iterator[None]:
    before = [(module, getattr(module, attribute)) for _, module in dropout_modules(model)]
    for name, module in dropout_modules(model):
        setattr(module, attribute, values[name])
    try:
        yield
    finally:
        for module, value in before:
            setattr(module, attribute, value)


def _with_mode(model: nn.Module, mode: Mode) -> AbstractContextManager[None]:
    modes = {name: mode for name, _ in dropout_modules(model)}
    return _with_attribute(model, "mode_override", modes)


def sampling(model: nn.Module) -> AbstractContextManager[None]:
    """The part of :func:`thinned.sampling` that reaches thinned's own layers."""
    return _sampling(model)


@contextmanager
def _sampling(model: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        for _, module in dropout_modules(model):
            if isinstance(module, nn.Module):
                stack.callback(disable_fused_kernels(module).remove)
        for encoder in model.modules():
            if isinstance(encoder, nn.TransformerEncoder):
                stack.callback(disable_nested_tensors(encoder).remove)
        with _with_mode(model, "sample"):
            yield


def off(model: nn.Module) -> AbstractContextManager[None]:
    """The part of :func:`thinned.off` that reaches thinned's own layers."""
    return _with_mode(model, "off")


def frozen(model: nn.Module) -> AbstractContextManager[None]:
    """The part of :func:`thinned.frozen` that reaches thinned's own layers."""
    keys = {name: _key_of_call_0(module) for name, module in dropout_modules(model)}
    return _with_attribute(model, "frozen_key", keys)


def _key_of_call_0(module: DropoutModule) -> TensorKey:
    if module.model_key is None:
        return module.next_key()
    return TensorKey(*module.model_key.tensor_key()[:2], module.stream, 0)


@dataclass
class Tape:
    """The keys that each layer drew with, call by call: enough to draw all masks again.

    It is written by :func:`thinned.recording` and read by :func:`thinned.replaying`. It holds
    keys, not masks.

    Args:
        drawn: The keys of each layer in the order of its calls, by the name of the layer.

    Example:
        >>> import torch
        >>> import thinned, thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with thinned.recording(model) as tape:
        ...     first = model(torch.ones(100))
        >>> saved = tnn.Tape.from_state_dict(tape.state_dict())
        >>> with thinned.replaying(model, saved):
        ...     bool((model(torch.ones(100)) == first).all())
        True
    """

    drawn: dict[str, list[TensorKey]] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the mask contract and, under "drawn", tuples of tensors and ints.

        Returns:
            A state for ``torch.save`` and ``weights_only`` loading.
        """
        drawn = {name: [tuple(key) for key in keys] for name, keys in self.drawn.items()}
        return {"contract": CONTRACT, "drawn": drawn}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Tape:
        """Read what :meth:`state_dict` returned.

        Args:
            state: The state.

        Returns:
            A new tape.

        Raises:
            InputError: Where the tape was recorded under another mask contract.
        """
        if set(state) == {"contract", "drawn"}:
            check_contract(state, "tape")
            state = state["drawn"]
        return cls({name: [TensorKey(*key) for key in keys] for name, keys in state.items()})


class _Recorder:
    def __init__(self, tape: Tape, name: str) -> None:
        self.keys = tape.drawn.setdefault(name, [])

    def turn(self, module: DropoutModule) -> TensorKey:
        tensor_key = module.next_key()
        if mapped_levels(tensor_key.seed_step) or mapped_levels(tensor_key.sample_ids):
            raise InputError(
                "a tape cannot hold keys that vmap maps, since they end with it; record outside "
                "vmap, or without mapped sample ids"
            )
        self.keys.append(tensor_key)
        # The call counter of a keyed module has already remembered the key for recomputation.
        return tensor_key if module.model_key is not None else remember_key(module, tensor_key)


class _Player:
    def __init__(self, tape: Tape, name: str) -> None:
        self.name, self.keys, self.position = name, tape.drawn.get(name, []), 0

    def turn(self, module: DropoutModule) -> TensorKey:
        if self.position >= len(self.keys):
            raise InputError(
                f"layer {self.name!r} is called {self.position + 1} times, but the tape holds "
                f"{len(self.keys)} of its calls; replay exactly what was recorded"
            )
        self.position += 1
        return remember_key(module, self.keys[self.position - 1])


@contextmanager
def recording(model: nn.Module) -> Iterator[Tape]:
    """The part of :func:`thinned.recording` that reaches thinned's own layers."""
    tape = Tape()
    recorders = {name: _Recorder(tape, name) for name, _ in dropout_modules(model)}
    with _with_attribute(model, "tape", recorders):
        yield tape


def replaying(model: nn.Module, tape: Tape) -> AbstractContextManager[None]:
    """The part of :func:`thinned.replaying` that reaches thinned's own layers."""
    players = {name: _Player(tape, name) for name, _ in dropout_modules(model)}
    return _with_attribute(model, "tape", players)
