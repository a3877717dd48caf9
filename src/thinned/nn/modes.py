"""Context managers that set what the dropout modules of a model do, and undo it at the end."""

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
    """Make dropout draw masks whatever ``model.training`` is: Monte Carlo dropout.

    Other layers, such as BatchNorm, stay in evaluation. The mean of many passes is the prediction,
    and their spread is the uncertainty of the model.

    Args:
        model: A model with dropout modules.

    Returns:
        A context manager.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5)).eval()
        >>> with tnn.sampling(model):
        ...     passes = torch.stack([model(torch.ones(1000)) for _ in range(4)])
        >>> bool((passes == 0).any())
        True

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian approximation", section 4.
    """
    return _sampling(model)


@contextmanager
def _sampling(model: nn.Module) -> Iterator[None]:
    with ExitStack() as stack:
        for _, module in dropout_modules(model):
            if isinstance(module, nn.Module):
                stack.callback(disable_fused_kernels(module).remove)
        with _with_mode(model, "sample"):
            yield


def off(model: nn.Module) -> AbstractContextManager[None]:
    """Switch all dropout off: layers return their result without noise, not even scaled.

    Args:
        model: A model with dropout modules.

    Returns:
        A context manager.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with tnn.off(model):
        ...     model(torch.ones(3))
        tensor([1., 1., 1.])
    """
    return _with_mode(model, "off")


def frozen(model: nn.Module) -> AbstractContextManager[None]:
    """Make every dropout module draw the same noise in all its calls: one fixed sub-network.

    In a keyed model it is the noise of the present step and of call 0. Otherwise each module takes
    64 bits of torch's generator.

    Args:
        model: A model with dropout modules.

    Returns:
        A context manager.

    Raises:
        InputError: In a keyed model before the first ``key.at``.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with tnn.frozen(model):
        ...     bool((model(torch.ones(100)) == model(torch.ones(100))).all())
        True
    """
    keys = {name: _key_of_call_0(module) for name, module in dropout_modules(model)}
    return _with_attribute(model, "frozen_key", keys)


def _key_of_call_0(module: DropoutModule) -> TensorKey:
    if module.model_key is None:
        return module.next_key()
    return TensorKey(*module.model_key.tensor_key()[:2], module.stream, 0)


@dataclass
class Tape:
    """The keys that each layer drew with, call by call: enough to draw all masks again.

    It is written by :func:`recording` and read by :func:`replaying`. It holds keys, not masks.

    Args:
        drawn: The keys of each layer in the order of its calls, by the name of the layer.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with tnn.recording(model) as tape:
        ...     first = model(torch.ones(100))
        >>> saved = tnn.Tape.from_state_dict(tape.state_dict())
        >>> with tnn.replaying(model, saved):
        ...     bool((model(torch.ones(100)) == first).all())
        True
    """

    drawn: dict[str, list[TensorKey]] = field(default_factory=dict)

    def state_dict(self) -> dict[str, list[tuple[torch.Tensor, torch.Tensor | None, int, int]]]:
        """Return tuples of tensors and ints, for ``torch.save`` and ``weights_only`` loading."""
        return {name: [tuple(key) for key in keys] for name, keys in self.drawn.items()}  # type: ignore[misc]

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Tape:
        """Read what :meth:`state_dict` returned.

        Args:
            state: The state.

        Returns:
            A new tape.
        """
        return cls({name: [TensorKey(*key) for key in keys] for name, keys in state.items()})


class _Recorder:
    def __init__(self, tape: Tape, name: str) -> None:
        self.keys = tape.drawn.setdefault(name, [])

    def turn(self, module: DropoutModule) -> TensorKey:
        tensor_key = module.next_key()
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
    """Record the key of every call of every dropout module on a tape.

    For consistent dropout in policy gradients, record the rollout, and compute the
    log-probabilities of the update under :func:`replaying`. The ratio is then 1 at the first step.

    Args:
        model: A model with dropout modules.

    Yields:
        The :class:`Tape` that is written.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with tnn.recording(model) as tape:
        ...     _ = model(torch.ones(2)), model(torch.ones(2))
        >>> len(tape.drawn["0"])
        2

    Reference:
        Hausknecht and Wagener 2022, "Consistent dropout for policy gradient reinforcement
        learning".
    """
    tape = Tape()
    recorders = {name: _Recorder(tape, name) for name, _ in dropout_modules(model)}
    with _with_attribute(model, "tape", recorders):
        yield tape


def replaying(model: nn.Module, tape: Tape) -> AbstractContextManager[None]:
    """Make every dropout module draw what a tape holds, call by call, from its start.

    A layer that is called more often than it was recorded raises :class:`thinned.InputError`.

    Args:
        model: The model of the recording, or a copy with the same names.
        tape: What :func:`recording` wrote.

    Returns:
        A context manager.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(tnn.Dropout(0.5))
        >>> with tnn.recording(model) as tape:
        ...     first = model(torch.ones(100))
        >>> with tnn.replaying(model, tape):
        ...     bool((model(torch.ones(100)) == first).all())
        True

    Reference:
        Hausknecht and Wagener 2022, "Consistent dropout for policy gradient reinforcement
        learning".
    """
    players = {name: _Player(tape, name) for name, _ in dropout_modules(model)}
    return _with_attribute(model, "tape", players)
