"""Context managers that set what the dropout modules of a model do, and undo it at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .._errors import InputError
from ..algebra.key import CONTRACT, check_contract
from ..engines.torch.tensor_key import TensorKey, mapped_levels
from ..functional import Mode
from .contexts import Context, Kind, entered
from .module import DropoutModule, dropout_modules
from .recompute import remember_key


def _over_layers(
    model: nn.Module, kind: Kind, values: dict[str, Any], *, bypasses_fused: bool = False
) -> Context:
    """A context that sets values for the dropout modules of a model, given by their names."""
    return Context(
        values={kind: {module: values[name] for name, module in dropout_modules(model)}},
        bypasses_fused=bypasses_fused,
    )


def _with_mode(model: nn.Module, mode: Mode) -> Context:
    # torch's fused kernels look past our layers inside these modules
    fused = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
    has_fused = mode == "sample" and any(isinstance(m, fused) for m in model.modules())
    modes = {name: mode for name, _ in dropout_modules(model)}
    return _over_layers(model, "mode", modes, bypasses_fused=has_fused)


def sampling(model: nn.Module) -> AbstractContextManager[None]:
    """The part of :func:`thinned.sampling` that reaches thinned's own layers."""
    return entered(_with_mode(model, "sample"))


def averaging(model: nn.Module) -> AbstractContextManager[None]:
    """Make thinned's own layers return their result of evaluation, whatever their mode is."""
    return entered(_with_mode(model, "mean"))


def drawing_by(model: nn.Module, turn: Callable[[str, DropoutModule], TensorKey]) -> Context:
    """A context in which thinned's own layers draw under the keys of ``turn``, by their names."""
    tapes = {name: _Turns(turn, name) for name, _ in dropout_modules(model)}
    return _over_layers(model, "tape", tapes)


class _Turns:
    def __init__(self, turn: Callable[[str, DropoutModule], TensorKey], name: str) -> None:
        self.of_name, self.name = turn, name

    def turn(self, module: DropoutModule) -> TensorKey:
        return self.of_name(self.name, module)


def off(model: nn.Module) -> AbstractContextManager[None]:
    """The part of :func:`thinned.off` that reaches thinned's own layers."""
    return entered(_with_mode(model, "off"))


def frozen(model: nn.Module) -> AbstractContextManager[None]:
    """The part of :func:`thinned.frozen` that reaches thinned's own layers."""
    keys = {name: _key_of_call_0(module) for name, module in dropout_modules(model)}
    return entered(_over_layers(model, "frozen_key", keys))


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
        self.tape, self.name, self.position = tape, name, 0

    def turn(self, module: DropoutModule) -> TensorKey:
        self.position += 1
        return remember_key(module, recorded_key(self.tape, self.name, self.position - 1))


def recorded_key(tape: Tape, name: str, position: int) -> TensorKey:
    """Return the key of one call of a site on a tape, or raise where it was not recorded."""
    keys = tape.drawn.get(name, [])
    if position >= len(keys):
        raise InputError(
            f"layer {name!r} is called {position + 1} times, but the tape holds "
            f"{len(keys)} of its calls; replay exactly what was recorded"
        )
    return keys[position]


@contextmanager
def recording(model: nn.Module, tape: Tape | None = None) -> Iterator[Tape]:
    """The part of :func:`thinned.recording` that reaches thinned's own layers."""
    tape = Tape() if tape is None else tape
    recorders = {name: _Recorder(tape, name) for name, _ in dropout_modules(model)}
    with entered(_over_layers(model, "tape", recorders)):
        yield tape


def replaying(model: nn.Module, tape: Tape) -> AbstractContextManager[None]:
    """The part of :func:`thinned.replaying` that reaches thinned's own layers."""
    players = {name: _Player(tape, name) for name, _ in dropout_modules(model)}
    return entered(_over_layers(model, "tape", players))
