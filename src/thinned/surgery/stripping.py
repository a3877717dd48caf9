"""Stripping a model of dropout, so that its training is deterministic."""

from __future__ import annotations

from typing import Any

from torch import nn

from .._errors import InputError
from .attribute_rates import edits_to_zero
from .edits import CallInsertion, Edit, Edits, apply_edits
from .exposing import expose
from .model_access import seed_all, tensors_in, unwrap_compiled
from .model_call import Forward, ModelCall
from .observe import preserve_state
from .rates import rate_of, set_rate
from .sites import find
from .targets import Where
from .tensor_values import close_tensors, kind_of, write_tensor

_RATE_NAMES = r"drop|mask_(time|feature)_prob|jitter|skip_prob|stochastic_depth"


def strip(
    model: nn.Module,
    *inputs: Any,
    where: Where = None,
    forward: Forward | None = None,
    **named: Any,
) -> Edits:
    """Set the rates of a model to 0, in place, so that training draws nothing.

    Without inputs, the layers that hold a rate are set, as by :func:`set_rate` at 0. With inputs,
    functional dropout is exposed first (:func:`thinned.expose`) and set too; where two training
    passes still differ, the rates in attributes of modules and of their ``config`` are also set:
    ``layerdrop``, ``mask_time_prob`` and others. After that training passes are equal; if they are
    not, ``notes`` name what still draws, with file and line. A second call changes nothing.

    Args:
        model: The model to change.
        *inputs: The inputs of the model by position.
        where: The layers to set: a class, a name or the end of one, a regular expression, or a
            function of name and module. None sets all.
        forward: A function of the model and the inputs that runs it, as for :func:`thinned.find`.
        **named: The inputs of the model by name.

    Returns:
        The changes; ``undo()`` restores the rates.

    Raises:
        InputError: Where ``where`` matches no layer with a rate.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        >>> edits = strip(model)
        >>> edits
        1.p: 0.5 -> 0
        >>> edits.undo()
    """
    if inputs and isinstance(inputs[0], (str, type)):
        raise InputError(
            f"inputs are those of the model; layers are selected by where={inputs[0]!r}"
        )
    if not inputs and not named and forward is None:
        return set_rate(model, 0.0, where)
    model = unwrap_compiled(model)
    run = ModelCall(model, inputs, named, forward)
    exposed = expose(model, *inputs, forward=forward, **named)
    edits: list[Edit] = list(exposed.edits)
    notes: list[str] = []
    try:
        edits += _set_layers(model, where)
        if where is None and not _is_deterministic(model, run):
            edits += apply_edits(list(edits_to_zero(model, _RATE_NAMES))).edits
            if not _is_deterministic(model, run):
                notes = [
                    f"{s.function} at {s.where} still draws"
                    for s in find(model, *inputs, forward=forward, **named)
                    if s.in_train
                ]
                notes = notes or ["training passes still differ, and no observed call explains it"]
    except BaseException:
        Edits(tuple(edits)).undo()
        raise
    # layers that were exposed, but that ``where`` does not select, become calls again
    kept = tuple(
        e for e in edits if not isinstance(e, CallInsertion) or where is None or e.layer.p == 0
    )
    for edit in edits:
        if edit not in kept:
            edit.undo()
    return Edits(kept, tuple(notes))


def _set_layers(model: nn.Module, where: Where) -> tuple[Edit, ...]:
    if where is None and not any(rate_of(m) is not None for m in model.modules()):
        return ()
    return set_rate(model, 0.0, where).edits


def _is_deterministic(model: nn.Module, run: ModelCall) -> bool:
    """Return whether training passes from different states of all generators agree.

    Outputs without values, on the meta device, do not show it: there nothing may draw.
    """
    results = []
    with preserve_state(model, (run.inputs, run.named)):
        model.train()
        buffers = [(b, b.detach().clone()) for b in model.buffers()]
        for seed in (1, 2, 3):
            seed_all(seed)
            for buffer, values in buffers:
                write_tensor(buffer, values)
            results.append(tensors_in(run(model)))
    first = results[0]
    if any(kind_of(x) == "meta" for x in first):
        return not any(
            site.in_train for site in find(model, *run.inputs, forward=run.forward, **run.named)
        )
    return all(len(r) == len(first) and all(map(close_tensors, r, first)) for r in results[1:])
