"""The base of the layers on recurrent networks: torch's LSTM, GRU or RNN with dropout inside."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .._errors import InputError, choice, flag, probability, unknown
from ..algebra.schedule import SCHEDULES, Schedule
from ..functional import recurrent
from ..functional.core import Rate
from ..functional.inputs import check_dense
from ..functional.recurrent import Kind, Method, Network, StateNoise
from . import layouts
from .module import DropoutModule

# method -> (the networks that have what it acts on, its scales with that of the paper first)
_METHODS: dict[Method, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "variational": (("LSTM", "GRU", "RNN"), ("inverted", "classic")),
    "recurrent": (("LSTM", "GRU"), ("classic", "inverted")),
    "rnndrop": (("LSTM",), ("classic",)),
    "zoneout": (("LSTM", "GRU", "RNN"), (None,)),
    "thinned": (("LSTM", "GRU", "RNN"), ("inverted",)),
}


def _rate(name: str) -> Any:
    def get(self: StateLayer) -> float:
        return self._rates[name]

    def put(self: StateLayer, rate: float) -> None:
        self._set_rate(name, rate)

    return property(get, put, doc=f"The rate of {name}, in [0, 1].")


class StateLayer(DropoutModule, nn.Module):
    """Base of the layers that replace torch's LSTM, GRU or RNN and drop inside. Abstract.

    :class:`DropState` describes the arguments and what they compute. In evaluation, and where no
    state is dropped, torch's kernels run, layer by layer where something is between. Otherwise a
    loop over the steps runs, with the product of all inputs computed at once. On CUDA torch may
    warn once that the weights are not one chunk of memory: dropped weights cannot be.

    Other implementations of weight-drop differ. torch refuses a dropped tensor as ``weight_hh_l0``
    but then runs with it, in evaluation too. Wrapped into a Parameter it is accepted, but then the
    true weight has no gradient. Code that writes dropped values into the weight loses the original
    values for good.
    """

    def __init__(
        self,
        module: nn.RNNBase,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
        weights: float | Schedule = 0.0,
        states: float | Schedule = 0.0,
        cells: float | Schedule | None = None,
        method: Method = "variational",
        tied: bool = True,
        per: Literal["step", "sequence"] | None = None,
        scale: Literal["inverted", "classic"] | None = None,
        locked: bool = True,
    ) -> None:
        super().__init__()
        flag(locked, "locked")
        self.locked = locked
        self._network = _network(module, type(self).__name__)
        self._state_noise = _state_noise(type(module).__name__, method, tied, per, scale)
        if method == "thinned" and module.proj_size:
            raise InputError(
                "method='thinned' drops units of the state, which a projection mixes, but got "
                f"{module}; use proj_size=0, or method='variational'"
            )
        self.input_size, self.hidden_size = module.input_size, module.hidden_size
        self.proj_size: int = module.proj_size
        self.num_layers, self.bias = module.num_layers, module.bias
        self.batch_first, self.bidirectional = module.batch_first, module.bidirectional
        self._names = tuple(module._parameters)
        for name, parameter in module._parameters.items():
            self.register_parameter(name, parameter)
        if cells is not None and (method != "zoneout" or self._network.kind != "lstm"):
            raise InputError(
                "cells is the zoneout rate of the cells of an LSTM, but got "
                f"cells={cells} for {method} of {module}"
            )
        if self._network.kind == "lstm" and method == "zoneout" and cells is None:
            cells = states
        rates: dict[str, float | Schedule] = {
            "inputs": inputs,
            "between": module.dropout if between is None else between,
            "outputs": outputs,
            "weights": weights,
            "states": states,
            "cells": 0.0 if cells is None else cells,
        }
        self._schedules: dict[str, Schedule] = {
            name: rate for name, rate in rates.items() if isinstance(rate, SCHEDULES)
        }
        self._rates: dict[str, float] = {}
        self._rate_tensors: dict[str, Tensor] = {}
        self._active: list[str] = list(self._schedules)
        for name, rate in rates.items():
            self._set_rate(name, rate(0) if isinstance(rate, SCHEDULES) else rate)

    inputs = _rate("inputs")
    between = _rate("between")
    outputs = _rate("outputs")
    weights = _rate("weights")
    states = _rate("states")
    cells = _rate("cells")

    def _set_rate(self, name: str, rate: float) -> None:
        value = probability(rate, f"the rate of {name}")
        if name == "between" and value and self.num_layers == 1:
            raise InputError(
                f"between={value} drops what goes from layer to layer, but the module has one "
                f"layer; write outputs={value}, or between=0"
            )
        self._rates[name] = value
        self._rate_tensors[name] = torch.tensor(value, dtype=torch.float64, device="cpu")
        if value and name not in self._active:
            self._active.append(name)

    @property
    def p(self) -> float:
        """The largest rate. Setting it sets the rate of every place that drops."""
        return max(self._rates.values())

    @p.setter
    def p(self, rate: float) -> None:
        rate = probability(rate)
        for name in self._active:
            self._set_rate(name, rate)

    def step(self, step: int) -> None:
        """Take the rates that the schedules have at ``step``.

        Args:
            step: The number of the optimizer step, from 0.
        """
        if self._schedules:
            self.schedule_step = step
        for name, schedule in self._schedules.items():
            self._set_rate(name, schedule(step))

    def flatten_parameters(self) -> None:
        """Do nothing: training code calls it on torch's modules."""

    def forward(self, input: Any, state: Any = None) -> tuple[Any, Any]:
        packed: Any = input if isinstance(input, PackedSequence) else None
        lengths: Tensor | None = None
        if packed is not None:
            input, lengths = pad_packed_sequence(packed, self.batch_first)
        x, states = self._checked_inputs(input, state)
        mode = self.mode()
        rates = self._current_rates(mode == "sample") if mode != "off" else {}
        key = self.call_key() if mode == "sample" and rates else None
        weights = [getattr(self, name) for name in self._names]
        y, states = recurrent.recurrent_stack(
            x,
            states,
            weights,
            self._network,
            rates,
            self._state_noise,
            mode == "sample",
            locked=self.locked,
            key=key,
            lengths=lengths,
        )
        result: Any = y
        if packed is not None:
            result = layouts.pack_again(y, packed)
        elif input.dim() == 2:
            result, states = y.squeeze(1), tuple(s.squeeze(1) for s in states)
        elif self.batch_first:
            result = y.transpose(0, 1)
        return result, states if self._network.kind == "lstm" else states[0]

    def _current_rates(self, sampling: bool) -> dict[str, Rate]:
        """The rates that are not 0; within a graph, as tensors where a schedule moves them."""
        moving = self._schedules if sampling and torch.compiler.is_compiling() else {}
        if self._state_noise.method == "thinned":  # its rate sets shapes, so it is a number
            moving = {name: schedule for name, schedule in moving.items() if name != "states"}
        return {
            n: self._rate_tensors[n] if n in moving else self._rates[n]
            for n in self._active
            if n in moving or self._rates[n]
        }

    def _checked_inputs(self, input: Tensor, state: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Input [t, b, d] and states [layers x directions, b, h], checked."""
        check_dense(type(self).__name__, input)
        layout = "[b, t, d]" if self.batch_first else "[t, b, d]"
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise InputError(
                f"{type(self).__name__} needs an input {layout} or [t, d] with "
                f"d = {self.input_size}, but got {list(input.shape)}"
            )
        if input.dim() == 2:
            x = input.unsqueeze(1)
        else:
            x = input.transpose(0, 1) if self.batch_first else input
        if not x.shape[0]:
            raise InputError(
                f"{type(self).__name__} needs at least one step, but got an input "
                f"{list(input.shape)} of layout {layout}"
            )
        net = self._network
        stacked = net.layers * net.directions
        shapes = [(stacked, x.shape[1], size) for size in net.state_sizes]
        if state is None:
            return x, tuple(x.new_zeros(shape) for shape in shapes)
        states = (state,) if isinstance(state, Tensor) else tuple(state)
        wanted = shapes if input.dim() == 3 else [(n, size) for n, _, size in shapes]
        for s in states:
            check_dense(type(self).__name__, s, "state")
        if [tuple(s.shape) for s in states] != wanted:
            each = f"h of shape {list(wanted[0])}"
            if len(wanted) == 2:
                each = f"(h, c), each of shape {list(wanted[0])}"
                if wanted[0] != wanted[1]:
                    each = f"(h, c) of shapes {list(wanted[0])} and {list(wanted[1])}"
            raise InputError(
                f"the initial state has to be {each}, but got {[list(s.shape) for s in states]}"
            )
        return x, tuple(s.unsqueeze(1) for s in states) if input.dim() == 2 else states

    def extra_repr(self) -> str:
        net = self._network
        text = f"{net.kind}, {self.input_size}, {self.hidden_size}, num_layers={net.layers}"
        text += f", proj_size={net.projection}" if net.projection else ""
        text += "".join(f", {n}" for n in ("bidirectional", "batch_first") if getattr(self, n))
        text += "".join(f", {n}={self._rates[n]}" for n in self._active)
        text += "" if self.locked else ", locked=False"
        drops_states = "states" in self._active or "cells" in self._active
        return text + (f", method={self._state_noise.method}" if drops_states else "")


def _network(module: nn.RNNBase, layer: str) -> Network:
    """Describe ``module``, or raise where the class ``layer`` cannot replace it."""
    if type(module) not in (nn.LSTM, nn.GRU, nn.RNN):
        raise InputError(
            f"{layer} needs a torch.nn.LSTM, GRU or RNN, but got {type(module).__name__}"
        )
    directions = 2 if module.bidirectional else 1
    kind: Kind = module.mode.lower()  # type: ignore[assignment]
    network = Network(
        kind, module.num_layers, directions, module.hidden_size, module.bias, module.proj_size
    )
    wanted = network.layers * directions * network.tensors
    if len(module._parameters) != wanted or module._forward_pre_hooks:
        raise InputError(
            f"{layer} needs the original parameters of the module, but something rewrites them "
            "(weight norm or another hook); remove it first"
        )
    return network


def _state_noise(
    name: str, method: Method, tied: bool, per: str | None, scale: str | None
) -> StateNoise:
    """Describe how states are dropped, or raise where the arguments do not fit together."""
    choice(method, "method", _METHODS)
    flag(tied, "tied")
    networks, scales = _METHODS[method]
    if name not in networks:
        raise InputError(
            f"method={method!r} acts on the memory of {' or '.join(networks)}, but got {name}"
        )
    if not tied and (method != "variational" or name == "RNN"):
        raise InputError(
            f"tied=False is for the gates under method='variational', but got {method!r} for {name}"
        )
    if per not in (None, "step", "sequence"):
        raise unknown("per", per, ("step", "sequence"))
    if per is not None and method != "recurrent":
        raise InputError(f"per is for method='recurrent' only, but got per={per!r} for {method!r}")
    if scale is not None and scale not in scales:
        raise InputError(
            f"method={method!r} takes scale {' or '.join(map(repr, scales))}, but got {scale!r}"
        )
    return StateNoise(
        method,
        method == "recurrent" and per != "sequence",
        tied,
        (scale or scales[0]) == "inverted",
    )
