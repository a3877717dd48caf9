"""The cost of dropout in an LSTM on this CPU, compared with nn.LSTM.

python benchmarks/recurrent.py [--smoke]     (--smoke: tiny sizes, and nothing is written)

The figures are of a training step, forward and backward, all in one process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as TF

import thinned
from common import medians_in_turns, write_result
from thinned import functional as F
from thinned import nn
from thinned.algebra import Drop
from thinned.algebra.law import Bernoulli

SMOKE = "--smoke" in sys.argv
STEPS, BATCH, HIDDEN = (5, 3, 8) if SMOKE else (70, 32, 256)
AWD = {"inputs": 0.4, "outputs": 0.4, "weights": 0.5}
KINDS: dict[str, dict[str, Any]] = {
    "no rates": {},
    "locked input and output, weight-drop": AWD,
    "variational states": {"states": 0.3},
    "variational states, locked input and output, weight-drop": {"states": 0.3, **AWD},
    "variational states, gates untied": {"states": 0.3, "tied": False},
    "recurrent dropout, a mask for each step": {"states": 0.25, "method": "recurrent"},
    "rnndrop": {"states": 0.2, "method": "rnndrop"},
    "zoneout": {"states": 0.05, "cells": 0.5, "method": "zoneout"},
}


def lstm() -> torch.nn.LSTM:
    torch.manual_seed(0)
    return torch.nn.LSTM(HIDDEN, HIDDEN)


class Published(torch.nn.Module):
    """Locked dropout and WeightDrop as the code of AWD-LSTM has them.

    The weight is replaced before each call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = lstm()
        self.raw = self.net.weight_hh_l0
        del self.net._parameters["weight_hh_l0"]

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        self.net.weight_hh_l0 = TF.dropout(self.raw, AWD["weights"], self.training)
        y, state = self.net(self.locked(x, AWD["inputs"]))
        return self.locked(y, AWD["outputs"]), state

    @staticmethod
    def locked(x: Tensor, p: float) -> Tensor:
        return x * x.new_empty(1, x.shape[1], x.shape[2]).bernoulli_(1 - p) / (1 - p)


def check() -> None:
    """Exit before any timing unless the networks compute the same."""
    x, net = torch.randn(STEPS, BATCH, HIDDEN), lstm()
    loop = nn.DropState(net, states=0.5, method="zoneout")
    loop._current_rates = lambda sampling: {"states": 0.0}  # the loop over steps at a rate of 0
    model = torch.nn.Sequential(nn.DropState(net, **AWD))
    thinned.key(model).at(0)
    tensor_key = model[0].call_key()
    thinned.key_of(model).at(0)

    def lock(t, p, n):
        return F.drop(t, Drop(Bernoulli(p), "b d", "t b d"), key=F.fold_in(tensor_key, n))

    twin = lstm()
    twin.weight_hh_l0.data = F.weight_drop(
        net.weight_hh_l0, AWD["weights"], key=F.fold_in(tensor_key, 1)
    ).detach()
    pairs = [
        (loop(x)[0], net(x)[0]),
        (model(x)[0], lock(twin(lock(x, AWD["inputs"], 0))[0], AWD["outputs"], 7)),
    ]
    if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs):
        raise SystemExit("a network does not compute what that of torch computes; no results")


def step(net: torch.nn.Module, x: Tensor, grad: Tensor) -> Callable[[], None]:
    def run() -> None:
        net.zero_grad()
        x.grad = None
        net(x)[0].backward(grad)

    return run


def main() -> None:
    torch.set_num_threads(2)
    check()
    x, grad = (
        torch.randn(STEPS, BATCH, HIDDEN, requires_grad=True),
        torch.randn(STEPS, BATCH, HIDDEN),
    )
    nets: dict[str, torch.nn.Module] = {"nn.LSTM": lstm()}
    nets |= {name: nn.DropState(lstm(), **rates) for name, rates in KINDS.items()}
    nets["the code of AWD-LSTM"] = Published()
    runs = {name: step(net, x, grad) for name, net in nets.items()}
    medians = medians_in_turns(runs, 0.0 if SMOKE else 4.0)
    rows = [
        {"network": name, "step": time, "times nn.LSTM": time / medians["nn.LSTM"]}
        for name, time in medians.items()
    ]
    for row in rows:
        print(
            f"{row['network']}: {row['step'] / 1000:.2f} ms for each step, "
            f"{row['times nn.LSTM']:.2f} x nn.LSTM"
        )
    sizes = {"steps": STEPS, "batch": BATCH, "hidden": HIDDEN}
    if not SMOKE:
        write_result(
            "recurrent", {"unit": "microseconds", "threads": 2, **sizes, "training step": rows}
        )


if __name__ == "__main__":
    main()
