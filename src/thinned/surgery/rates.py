"""Rates of the layers that a model has, whoever wrote them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .._errors import probability
from ..nn.learned import Learned
from ..nn.method import FunctionLayer
from ..nn.module import DropoutModule
from .edits import Edits, Reset, done
from .model_access import plain
from .targets import Where, targets

RATES = ("p", "drop_prob", "drop_rate", "dropout_p", "dropout", "rate", "prob", "drop")


def rate_of(module: nn.Module) -> str | None:
    """The name of the attribute that holds a module's rate, or None where it drops nothing."""
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return "dropout"
    if isinstance(module, Learned) or (isinstance(module, FunctionLayer) and module.rate is None):
        return None
    drops = (
        isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd))
        or "drop" in type(module).__name__.lower()
    )
    if not drops:
        return None
    values = {name: getattr(module, name, None) for name in RATES}
    return next(
        (n for n, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)),
        None,
    )


def set_rate(
    model: nn.Module, rate: float | Callable[[str, nn.Module], float | None], where: Where = None
) -> Edits:
    """Set the rates of a model's dropout layers, in place: torch's, ours, anybody's that holds one
    under a usual name.

    ``rate``: in [0, 1], or a function of name and module that gives one, or None to leave that
    layer alone. ``where``: which layers, by class, name, end of a name, regular expression or
    function; None: all that drop now. Without ``where`` and with one number, layers at rate 0, such
    as an LSTM without dropout, are left alone. Attention and recurrent layers of torch count. A
    rate that a schedule moves moves on at its next step, and rates that are learned are not set.

    All is checked before the first change. ``.undo()`` takes it back; doing it again changes
    nothing. Functional dropout has no layer until :func:`thinned.expose` gives it one. Raises
    :class:`thinned.InputError` for a rate outside [0, 1] or a ``where`` that names nothing.
    """
    if not callable(rate):
        probability(rate)
    found = targets(plain(model), where, lambda m: rate_of(m) is not None, "layer with a rate")
    edits = []
    for name, module in found:
        attribute: Any = rate_of(module)
        before = getattr(module, attribute)
        wanted = rate(name, module) if callable(rate) else rate
        if wanted is None or (where is None and not callable(rate) and before == 0):
            continue
        after = probability(wanted, f"the rate of {name or 'the model'}")
        if after != before:
            edits.append(Reset(name, module, attribute, before, after))
    return done(edits)
