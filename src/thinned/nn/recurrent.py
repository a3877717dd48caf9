"""The host on recurrent networks."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .._errors import InputError, probability, unknown
from ..algebra.schedule import SCHEDULES, Schedule
from ..functional import recurrent
from ..functional.core import Rate
from ..functional.recurrent import Falling, Kind, Method, Network
from .module import DropoutModule

# method -> where it has a meaning, and its scales, the paper's first
_METHODS: dict[Method, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "variational": (("LSTM", "GRU", "RNN"), ("inverted", "classic")),
    "recurrent": (("LSTM", "GRU"), ("classic", "inverted")),
    "rnndrop": (("LSTM",), ("classic",)),
    "zoneout": (("LSTM", "GRU", "RNN"), (None,)),
}


def _rate(name: str) -> Any:
    def get(self: StateLayer) -> float:
        return self._rates[name]

    def put(self: StateLayer, rate: float) -> None:
        self._put(name, rate)

    return property(get, put, doc=f"The rate of {name}, in [0, 1].")


class StateLayer(DropoutModule, nn.Module):
    """torch's LSTM, GRU or RNN with dropout in all its places: locked masks, weight-drop, and
    falling states.

    ``module``: a ``torch.nn.LSTM``, ``GRU`` or ``RNN``. Its parameters are taken over under the
    same names, so checkpoints load both ways. Input, initial state and result are torch's:
    ``(output, state)``.

    Rates, each in [0, 1] or a schedule; 0 is off. x_t is the input, h_t the state, c_t an LSTM's
    memory, m a mask:

    - ``inputs``, ``between``, ``outputs``: locked dropout, x_t m / (1 - p) with one m [b, d] for all steps: on the input, on
      what goes from layer to layer, on the output (not on the state that is returned). ``between``: None takes the
      module's own ``dropout``, which drops elements in torch and is locked here.
    - ``weights``: weight-drop. W_hh m / (1 - p) in each layer and direction, one m for the whole call. The parameters are
      never written to.
    - ``states``, by ``method``:

      ``"variational"`` m h_{t-1} where it meets W_hh, one m for all steps; ``tied=False``: one for
      each gate as well. ``"recurrent"`` c_t = f_t c_{t-1} + m i_t g_t; in a GRU h_t = z_t h_{t-1} +
      (1 - z_t) m n_t. ``per="step"`` (0.25 in the paper) draws m anew, ``"sequence"`` (0.5) keeps
      it. What is remembered is never dropped. ``"rnndrop"`` c_t = m (f_t c_{t-1} + i_t g_t), one m
      for all steps. Evaluation has 1 - p for m, so memory there fades by that factor at each step;
      dividing by 1 - p while training, as ports do, lets it grow so. ``"zoneout"`` h_t = h_{t-1} +
      m_t (h'_t - h_{t-1}), h' the new state, m drawn anew; the same for c_t at the rate ``cells``
      (None: that of the states; 0.05 for states and 0.5 for cells in the paper). h'_t is made of
      the new c_t as it is before zoneout. Evaluation has 1 - p for m.

    ``scale``: of the first two methods: ``"inverted"`` divides m by 1 - p, and evaluation is the
    plain network; ``"classic"`` has 1 - p for m in evaluation. None is the paper's: inverted for
    variational, classic for recurrent. ``p`` reads the largest rate; set, it becomes the rate of
    every place that drops.

    Masks of activations belong to examples; those of weights to the call. In evaluation and where
    no state falls torch's kernels run, layer by layer if there is something between. Else a loop
    over steps runs, with the product of all inputs taken at once. On CUDA torch may say once that
    the weights are not one chunk of memory: dropped ones cannot be.

    Well-known code differs. torch refuses a dropped tensor in the place of ``weight_hh_l0``, and
    runs with it all the same, in evaluation too; wrapped into a Parameter it is taken, but then the
    true weight has no gradient; and code that writes dropped values into the weight loses them for
    good.

    Gal and Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
    networks" (variational, inputs, between, outputs). Semeniuta, Severyn, Barth 2016, "Recurrent
    dropout without memory loss". Moon, Choi, Lee, Song 2015, "RNNDROP: a novel dropout for RNNs in
    ASR". Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden
    activations". Merity, Keskar, Socher 2018, "Regularizing and optimizing LSTM language models"
    (weights). Raises :class:`thinned.InputError` for other modules, ``proj_size``, packed
    sequences, and what has no meaning.
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
    ) -> None:
        super().__init__()
        self._network = _network(module)
        self._falling = _falling(type(module).__name__, method, tied, per, scale)
        self.input_size, self.hidden_size, self.num_layers = (
            module.input_size,
            module.hidden_size,
            module.num_layers,
        )
        self.bias, self.batch_first, self.bidirectional = (
            module.bias,
            module.batch_first,
            module.bidirectional,
        )
        self._names = tuple(module._parameters)
        for name, parameter in module._parameters.items():
            self.register_parameter(name, parameter)
        if cells is not None and (method != "zoneout" or self._network.kind != "lstm"):
            raise InputError(
                f"cells is zoneout's rate of an LSTM's cells, but got cells={cells} for {method} of {module}"
            )
        if self._network.kind == "lstm" and method == "zoneout" and cells is None:
            cells = states
        given = {
            "inputs": inputs,
            "between": module.dropout if between is None else between,
            "outputs": outputs,
        }
        given |= {"weights": weights, "states": states, "cells": 0.0 if cells is None else cells}
        self._schedules: dict[str, Schedule] = {
            n: r for n, r in given.items() if isinstance(r, SCHEDULES)
        }
        self._rates: dict[str, float] = {}
        self._numbers: dict[str, Tensor] = {}
        self._used: list[str] = list(self._schedules)
        for name, rate in given.items():
            self._put(name, rate(0) if isinstance(rate, SCHEDULES) else rate)

    inputs = _rate("inputs")
    between = _rate("between")
    outputs = _rate("outputs")
    weights = _rate("weights")
    states = _rate("states")
    cells = _rate("cells")

    def _put(self, name: str, rate: float) -> None:
        value = probability(rate, f"the rate of {name}")
        if name == "between" and value and self.num_layers == 1:
            raise InputError(
                f"between={value} drops what goes from layer to layer, but the module has one layer; write outputs={value}, "
                "or between=0"
            )
        self._rates[name] = value
        self._numbers[name] = torch.tensor(value, dtype=torch.float64, device="cpu")
        if value and name not in self._used:
            self._used.append(name)

    @property
    def p(self) -> float:
        """The largest rate. Set, it becomes the rate of every place that drops."""
        return max(self._rates.values())

    @p.setter
    def p(self, rate: float) -> None:
        for name in self._used:
            self._put(name, rate)

    def step(self, step: int) -> None:
        """Take the rates that the schedules have at ``step``."""
        for name, schedule in self._schedules.items():
            self._put(name, schedule(step))

    def flatten_parameters(self) -> None:
        """Nothing; here because training code calls it on torch's modules."""

    def forward(self, input: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x, states = self._given(input, state)
        mode = self.mode()
        rates = self._now(mode == "sample") if mode != "off" else {}
        key = self.call_key() if mode == "sample" and rates else None
        weights = [getattr(self, name) for name in self._names]
        y, states = recurrent.stack(
            x, states, weights, self._network, rates, self._falling, mode == "sample", key=key
        )
        if input.dim() == 2:
            y, states = y.squeeze(1), tuple(s.squeeze(1) for s in states)
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, states if self._network.kind == "lstm" else states[0]

    def _now(self, samples: bool) -> dict[str, Rate]:
        """The rates that are not 0; in a graph, where a schedule moves one, as a tensor."""
        moving = self._schedules if samples and torch.compiler.is_compiling() else {}
        return {
            n: self._numbers[n] if n in moving else self._rates[n]
            for n in self._used
            if n in moving or self._rates[n]
        }

    def _given(self, input: Tensor, state: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Input [t, b, d] and states [layers x directions, b, h], checked."""
        if isinstance(input, PackedSequence):
            raise InputError(
                "DropState takes padded tensors, but got a PackedSequence: its steps have no place for a mask that an example "
                "keeps; write torch.nn.utils.rnn.pad_packed_sequence(input)"
            )
        layout = "[b, t, d]" if self.batch_first else "[t, b, d]"
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise InputError(
                f"DropState needs an input {layout} or [t, d] with d = {self.input_size}, but got {list(input.shape)}"
            )
        x = (
            input.unsqueeze(1)
            if input.dim() == 2
            else input.transpose(0, 1)
            if self.batch_first
            else input
        )
        if not x.shape[0]:
            raise InputError(
                f"DropState needs at least one step, but got an input {list(input.shape)} of layout {layout}"
            )
        net = self._network
        count = 2 if net.kind == "lstm" else 1
        shape = (net.layers * net.directions, x.shape[1], net.hidden)
        if state is None:
            return x, (x.new_zeros(shape),) * count
        states = (state,) if isinstance(state, Tensor) else tuple(state)
        wanted = shape if input.dim() == 3 else (shape[0], shape[2])
        if len(states) != count or any(s.shape != torch.Size(wanted) for s in states):
            raise InputError(
                f"the initial state has to be {'(h, c), each' if count == 2 else 'h'} of shape {list(wanted)}, but got "
                f"{[list(s.shape) for s in states]}"
            )
        return x, tuple(s.unsqueeze(1) for s in states) if input.dim() == 2 else states

    def extra_repr(self) -> str:
        net = self._network
        text = f"{net.kind}, {self.input_size}, {self.hidden_size}, num_layers={net.layers}"
        text += "".join(f", {n}" for n in ("bidirectional", "batch_first") if getattr(self, n))
        text += "".join(f", {n}={self._rates[n]}" for n in self._used)
        return text + (
            f", method={self._falling.method}"
            if "states" in self._used or "cells" in self._used
            else ""
        )


class DropState(StateLayer):
    """torch's LSTM, GRU or RNN with dropout in any of its places, by any of the methods.

    Args and behaviour: those of the base class.
    """


class VariationalRNNDropout(StateLayer):
    """Variational recurrent dropout: one mask of the states for all steps."""

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.5,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
        tied: bool = True,
        scale: Literal["inverted", "classic"] = "inverted",
    ) -> None:
        super().__init__(
            module,
            inputs=inputs,
            between=between,
            outputs=outputs,
            states=p,
            method="variational",
            tied=tied,
            scale=scale,
        )


class WeightDrop(StateLayer):
    """Weight-drop (AWD-LSTM): DropConnect on the recurrent weights, one mask for the whole call."""

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.5,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
    ) -> None:
        super().__init__(module, inputs=inputs, between=between, outputs=outputs, weights=p)


class RecurrentDropout(StateLayer):
    """Recurrent dropout without memory loss: what an LSTM or GRU adds to its memory is dropped."""

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.25,
        *,
        per: Literal["step", "sequence"] = "step",
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
        scale: Literal["inverted", "classic"] = "classic",
    ) -> None:
        super().__init__(
            module,
            inputs=inputs,
            between=between,
            outputs=outputs,
            states=p,
            method="recurrent",
            per=per,
            scale=scale,
        )


class RNNDrop(StateLayer):
    """RNNDrop: one mask of an LSTM's memory for all steps."""

    def __init__(
        self,
        module: nn.LSTM,
        p: float | Schedule = 0.2,
        *,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
    ) -> None:
        super().__init__(
            module, inputs=inputs, between=between, outputs=outputs, states=p, method="rnndrop"
        )


class Zoneout(StateLayer):
    """Zoneout: units of the state keep their previous value."""

    def __init__(
        self,
        module: nn.RNNBase,
        p: float | Schedule = 0.05,
        *,
        cell_p: float | Schedule | None = None,
        inputs: float | Schedule = 0.0,
        between: float | Schedule | None = None,
        outputs: float | Schedule = 0.0,
    ) -> None:
        super().__init__(
            module,
            inputs=inputs,
            between=between,
            outputs=outputs,
            states=p,
            cells=cell_p,
            method="zoneout",
        )


def _network(module: nn.RNNBase) -> Network:
    """What ``module`` is; or the reason why it cannot be taken over."""
    if type(module) not in (nn.LSTM, nn.GRU, nn.RNN):
        raise InputError(
            f"DropState needs a torch.nn.LSTM, GRU or RNN, but got {type(module).__name__}"
        )
    if module.proj_size:
        raise InputError(
            f"DropState does not take proj_size, but got {module.proj_size}; build the LSTM without it and put a Linear behind"
        )
    directions = 2 if module.bidirectional else 1
    kind: Kind = module.mode.lower()  # type: ignore[assignment]
    network = Network(kind, module.num_layers, directions, module.hidden_size, module.bias)
    wanted = network.layers * directions * (4 if module.bias else 2)
    if len(module._parameters) != wanted or module._forward_pre_hooks:
        raise InputError(
            "DropState needs the module's plain parameters, but something rewrites them (weight norm or another hook); "
            "remove it first"
        )
    return network


def _falling(name: str, method: Method, tied: bool, per: str | None, scale: str | None) -> Falling:
    """How states fall; or the reason why not so."""
    if method not in _METHODS:
        raise unknown("method", method, _METHODS)
    places, scales = _METHODS[method]
    if name not in places:
        raise InputError(
            f"method={method!r} acts on the memory of {' or '.join(places)}, but got {name}"
        )
    if not tied and (method != "variational" or name == "RNN"):
        raise InputError(
            f"tied=False is of the gates under method='variational', but got {method!r} for {name}"
        )
    if per not in (None, "step", "sequence"):
        raise unknown("per", per, ("step", "sequence"))
    if per is not None and method != "recurrent":
        raise InputError(
            f"per is a choice of method='recurrent' alone, but got per={per!r} for {method!r}"
        )
    if scale is not None and scale not in scales:
        raise InputError(
            f"method={method!r} knows scale {' or '.join(map(repr, scales))}, but got {scale!r}"
        )
    return Falling(
        method,
        method == "recurrent" and per != "sequence",
        tied,
        (scale or scales[0]) == "inverted",
    )
