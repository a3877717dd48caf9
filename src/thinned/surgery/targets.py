"""Which modules of a model a ``where`` argument selects."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from .._errors import InputError, nearest

Where: TypeAlias = type[nn.Module] | str | Callable[[str, nn.Module], bool] | None


def targets(
    model: nn.Module, where: Where, fits: Callable[[nn.Module], bool], what: str
) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the modules that satisfy ``fits`` and that ``where`` selects.

    ``where`` is a class; a name, or the end of one after a dot; a regular expression that matches
    somewhere in a name (tried where no name matches); a function of name and module; or None for
    all. A module that is in several places is returned once. ``what`` names the modules in the
    error. Raises :class:`thinned.InputError`, with similar names, where nothing is selected.
    """
    candidates = [(name, module) for name, module in model.named_modules() if fits(module)]
    if where is None:
        return candidates
    found = [(name, module) for name, module in candidates if _has_name(where, name)]
    found = found or [
        (name, module) for name, module in candidates if _selects(where, name, module)
    ]
    if not found:
        names = [name for name, _ in candidates if name]
        if not names:
            raise InputError(f"this model has no {what}")
        hint = (
            nearest(where, names) if isinstance(where, str) else f"there are {', '.join(names[:8])}"
        )
        raise InputError(f"{where!r} names no {what} of this model; {hint}")
    return found


def _has_name(where: Where, name: str) -> bool:
    return isinstance(where, str) and (name == where or name.endswith(f".{where}"))


def _selects(where: Where, name: str, module: nn.Module) -> bool:
    if isinstance(where, type):
        return isinstance(module, where)
    if isinstance(where, str):
        try:
            return re.search(where, name) is not None
        except re.error as error:
            raise InputError(
                f"{where!r} is neither a name nor a regular expression: {error}"
            ) from None
    assert where is not None
    return bool(where(name, module))
