"""Setting the rates of dropout layers of any library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from .._errors import InputError, probability
from ..algebra.schedule import SCHEDULES, Schedule
from ..nn.learned import Learned
from ..nn.method import FunctionLayer
from ..nn.module import DropoutModule, RatedModule, dropout_modules
from .edits import AttributeChange, Edits, ScheduleChange, apply_edits
from .model_access import unwrap_compiled
from .targets import Where, targets

RATES = ("p", "drop_prob", "drop_rate", "dropout_p", "dropout", "rate", "prob", "drop")


def rate_of(module: nn.Module) -> str | None:
    """Return the name of the attribute with the rate of a module, or None where it drops nothing.

    A module counts as dropping if it is a dropout module or has "drop" in the name of its class.
    """
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return "dropout"
    if isinstance(module, Learned) or (
        isinstance(module, FunctionLayer) and module.rate_name is None
    ):
        return None
    is_dropout = (
        isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd))
        or "drop" in type(module).__name__.lower()
    )
    if not is_dropout:
        return None
    values = {name: getattr(module, name, None) for name in RATES}
    return next(
        (n for n, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)),
        None,
    )


def unmoved_schedules(model: nn.Module) -> Iterator[tuple[str, DropoutModule]]:
    """Yield the layers with a schedule that was never advanced, with their names."""
    for name, layer in dropout_modules(model):
        has_schedule = bool(getattr(layer, "schedule", None) or getattr(layer, "_schedules", None))
        if has_schedule and layer.schedule_step is None:
            yield name, layer


def set_rate(
    model: nn.Module,
    rate: float | Schedule | Callable[[str, nn.Module], float | None],
    where: Where = None,
) -> Edits:
    """Set the rates of the dropout layers of ``model``, in place.

    Layers of torch, of thinned and of other libraries count, if an attribute with one of the usual
    names holds their rate; so do attention and recurrent layers of torch. Everything is checked
    before the first change, and a second call with the same arguments changes nothing.

    A schedule is given to layers of thinned, and moved by :func:`thinned.step` or
    :meth:`ModelKey.at`. A rate that a schedule sets is set by it again at its next step. Learned
    rates are not set. Functional dropout has no layer until :func:`thinned.expose` gives it one.

    Args:
        model: The model to change.
        rate: The probability of dropping, in [0, 1]; a schedule of it; or a function of the name
            and the module that returns the rate, or None to leave that layer as it is.
        where: The layers to set: a class, a name or the end of one, a regular expression, or a
            function of name and module. None sets all that drop now: with one number or schedule
            for all, layers at rate 0 without a schedule, such as an LSTM without dropout, are left
            as they are.

    Returns:
        The changes; ``undo()`` restores the old rates.

    Raises:
        InputError: Where a rate is outside [0, 1], ``where`` matches no layer with a rate, or a
            layer takes no schedule.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Dropout(0.2))
        >>> set_rate(model, 0.1, where="1")
        1.p: 0.5 -> 0.1

        Early dropout in a program with layers of torch and functional dropout:

        >>> import thinned
        >>> from thinned.algebra import Early
        >>> edits = thinned.replace(model)
        >>> edits = set_rate(model, Early(0.1, until=1000))
        >>> for step in (0, 1000):
        ...     thinned.step(model, step)
        ...     print(model[1].p)
        0.1
        0.0
    """
    if isinstance(rate, SCHEDULES):
        return _set_schedule(unwrap_compiled(model), rate, where)
    if not callable(rate):
        probability(rate)
    found = targets(
        unwrap_compiled(model), where, lambda m: rate_of(m) is not None, "layer with a rate"
    )
    edits = []
    for path, module in found:
        attribute: Any = rate_of(module)
        old = getattr(module, attribute)
        wanted = rate(path, module) if callable(rate) else rate
        if wanted is None or (where is None and not callable(rate) and old == 0):
            continue
        new = probability(wanted, f"the rate of {path or 'the model'}")
        if new != old:
            edits.append(
                AttributeChange(path=path, holder=module, attribute=attribute, old=old, new=new)
            )
    return apply_edits(edits)


def _set_schedule(model: nn.Module, schedule: Schedule, where: Where) -> Edits:
    found = targets(model, where, lambda m: rate_of(m) is not None, "layer with a rate")
    edits, foreign = [], []
    for path, module in found:
        attribute: Any = rate_of(module)
        has_schedule = getattr(module, "schedule", None) is not None
        if where is None and getattr(module, attribute) == 0 and not has_schedule:
            continue
        if not isinstance(module, RatedModule):
            foreign.append(f"{path or 'the model'} ({type(module).__name__})")
        elif module.schedule != schedule:
            edits.append(
                ScheduleChange(
                    path=path,
                    layer=module,
                    old=module.schedule,
                    old_rate=module.p,
                    new=schedule,
                )
            )
    if foreign:
        raise InputError(
            f"no schedule moves the rates of {', '.join(foreign)}; make layers of thinned first, "
            "by thinned.replace(model), or select others with where="
        )
    return apply_edits(edits)
