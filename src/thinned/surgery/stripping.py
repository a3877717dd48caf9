"""A model whose training draws nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from .attribute_rates import held
from .edits import Edit, Edits, Tapped, done
from .exposing import expose
from .model_access import plain, seed_all, tensors
from .observe import preserve_state
from .rates import rate_of, set_rate
from .sites import find
from .targets import Where

_RATES = r"drop|mask_(time|feature)_prob|jitter|skip_prob|stochastic_depth"


def strip(model: nn.Module, *inputs: Any, where: Where = None, **named: Any) -> Edits:
    """Set rates to 0, in place, so that training draws nothing. ``.undo()`` gives them back.

    Without inputs the layers that hold a rate are set, as :func:`set_rate` at 0 does. With the
    model's inputs functional dropout is exposed first (:func:`thinned.expose`) and set too, and
    where two training passes still differ also the rates that modules and their ``config`` hold as
    attributes: ``layerdrop``, ``mask_time_prob`` and their like. Then training passes are equal; if
    they are not, ``notes`` say what still draws, file and line. Doing it again changes nothing.

    ``where``: only these layers, by class, name, end of a name, regular expression or function.
    Raises :class:`thinned.InputError` where it names nothing.
    """
    if inputs and isinstance(inputs[0], (str, type)):
        raise InputError(f"inputs are the model's; which layers are meant is where={inputs[0]!r}")
    if not inputs and not named:
        return set_rate(model, 0.0, where)
    model = plain(model)
    exposed = expose(model, *inputs, **named)
    edits: list[Edit] = list(exposed.edits)
    notes: list[str] = []
    try:
        edits += _layers(model, where)
        if where is None and not _same(model, inputs, named):
            edits += done(list(held(model, _RATES))).edits
            if not _same(model, inputs, named):
                notes = [
                    f"{s.function} at {s.where} still draws"
                    for s in find(model, *inputs, **named)
                    if s.in_train
                ]
                notes = notes or [
                    "training passes still differ, and nothing that can be seen says why"
                ]
    except BaseException:
        Edits(tuple(edits)).undo()
        raise
    kept = tuple(e for e in edits if not isinstance(e, Tapped) or where is None or e.layer.p == 0)
    for edit in edits:
        if edit not in kept:
            edit.undo()
    return Edits(kept, tuple(notes))


def _layers(model: nn.Module, where: Where) -> tuple[Edit, ...]:
    if where is None and not any(rate_of(m) is not None for m in model.modules()):
        return ()
    return set_rate(model, 0.0, where).edits


def _same(model: nn.Module, inputs: Any, named: dict[str, Any]) -> bool:
    """Do training passes from different states of all generators agree?"""
    results = []
    with preserve_state(model, (inputs, named)):
        model.train()
        buffers = [(b, b.detach().clone()) for b in model.buffers()]
        for seed in (1, 2, 3):
            seed_all(seed)
            for buffer, values in buffers:
                buffer.copy_(values)
            results.append(tensors(model(*inputs, **named)))
    first = results[0]
    return all(len(r) == len(first) and all(map(_equal, r, first)) for r in results[1:])


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, equal_nan=True)
