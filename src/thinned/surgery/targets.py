"""Which modules of a model are meant."""

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
    """The modules that ``fits``, and of them those that ``where`` means; one that stands in several
    places once.

    ``where``: a class; a name, or the end of one after a dot; or else a regular expression that
    matches somewhere in a name; a function of name and module; None for all. Raises
    :class:`thinned.InputError` where nothing is meant, with near names.
    """
    known = [(name, module) for name, module in model.named_modules() if fits(module)]
    if where is None:
        return known
    found = [(name, module) for name, module in known if _named(where, name)]
    found = found or [(name, module) for name, module in known if _means(where, name, module)]
    if not found:
        names = [name for name, _ in known if name]
        if not names:
            raise InputError(f"this model has no {what}")
        hint = (
            nearest(where, names) if isinstance(where, str) else f"there are {', '.join(names[:8])}"
        )
        raise InputError(f"{where!r} names no {what} of this model; {hint}")
    return found


def _named(where: Where, name: str) -> bool:
    return isinstance(where, str) and (name == where or name.endswith(f".{where}"))


def _means(where: Where, name: str, module: nn.Module) -> bool:
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
