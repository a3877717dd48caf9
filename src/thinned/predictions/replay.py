"""The deterministic beginning of a pass: recorded in the first pass and returned in the others."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..surgery.costs import RECURRENT
from ..surgery.draws import DRAWING, classify_draw
from ..surgery.model_access import tensors_in

_COST = 4e-6  # seconds that a function mode adds to each call of a torch function, at most


def generator_states(device: torch.device) -> list[Any]:
    """The states of the generators of torch, Python and NumPy, to be compared by :func:`equal`."""
    with torch._C.DisableTorchFunction():
        states: list[Any] = [torch.get_rng_state(), random.getstate(), np.random.get_state()]
        if device.type not in ("cpu", "meta"):
            states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def equal(first: list[Any], second: list[Any]) -> bool:
    """Whether nothing was drawn between two states."""
    with torch._C.DisableTorchFunction():
        return first[1] == second[1] and all(
            np.array_equal(a, b) for a, b in zip(_arrays(first), _arrays(second), strict=True)
        )


def _arrays(states: list[Any]) -> list[Any]:
    tensors = [state.numpy() for state in states if isinstance(state, Tensor)]
    return [*tensors, states[2][1], states[2][2:]]


class ReplayError(Exception):
    """The recorded beginning does not fit this pass, which has to be run in full."""


class Recording:
    """The results of the torch functions that are called before the first draw.

    Args:
        inputs: The inputs of the pass, which every replayed pass gets too.
        device: The device of the model.
    """

    def __init__(self, inputs: Any, device: torch.device) -> None:
        self.inputs, self.device = inputs, device
        self.calls: list[tuple[Any, Any]] = []
        self.tensors: dict[int, tuple[Tensor, int]] = {}
        self.seconds = 0.0
        self.live_calls = 0  # after the first draw
        self.open = True
        self.state = generator_states(device)
        self.usable = True

    def close(self, started: float) -> None:
        """The first draw comes now."""
        if not self.open:
            return
        self.open = False
        self.seconds = time.perf_counter() - started
        # a draw that was not foreseen, within a recorded function or in Python
        self.usable = equal(self.state, generator_states(self.device))
        with torch._C.DisableTorchFunction():
            for tensor in tensors_in([self.inputs, *(result for _, result in self.calls)]):
                self.tensors[id(tensor)] = (tensor, tensor._version)

    @property
    def unchanged(self) -> bool:
        """Whether no recorded tensor was written since the recording ended."""
        with torch._C.DisableTorchFunction():
            return all(t._version == version for t, version in self.tensors.values())

    @property
    def saves_time(self) -> bool:
        """Whether the pass can be replayed, and the beginning took longer than that costs."""
        calls = len(self.calls) + self.live_calls
        return self.usable and self.seconds > _COST * calls and self.unchanged


def draws_now(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of a torch function can draw, once dropout is switched on."""
    if func not in DRAWING:
        return False
    found = classify_draw(func, args, kwargs)
    if found is None:
        return False
    kind, rate = found
    return bool(kind) or (func not in RECURRENT and rate is not None and rate > 0)


class Recorder(TorchFunctionMode):
    """Records the results of torch functions up to the first draw."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording
        self.started = time.perf_counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.recording.open and draws_now(func, args, kwargs):
            self.close()
        result = func(*args, **kwargs)
        if self.recording.open:
            self.recording.calls.append((func, result))
        else:
            self.recording.live_calls += 1
        return result

    def close(self) -> None:
        """The first draw comes now."""
        self.recording.close(self.started)


class Replayer(TorchFunctionMode):
    """Returns recorded results up to the first draw."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording, self.position = recording, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        position = self.position
        if position < len(self.recording.calls):
            recorded, result = self.recording.calls[position]
            if recorded != func:  # the getters of properties are new objects each time
                raise ReplayError
            self.position = position + 1
            return list(result) if isinstance(result, list) else result
        if position == len(self.recording.calls):
            self.close()
        return func(*args, **(kwargs or {}))

    def close(self) -> None:
        """The recorded calls are over; raise where something else was changed on the way."""
        if self.position > len(self.recording.calls):
            return
        if self.position < len(self.recording.calls) or not self.recording.unchanged:
            raise ReplayError
        self.position = len(self.recording.calls) + 1
