"""What the callbacks of several trainers share."""

from __future__ import annotations

import warnings
from typing import Any

from .._errors import InputError
from ..checks.live import check
from ..nn.module import dropout_modules


def checked(model: Any, args: Any, named: Any) -> Any:
    """What ``thinned.check`` finds, with a warning where that is anything."""
    findings = check(model, *args, **named)
    if findings:
        warnings.warn(str(findings), stacklevel=3)
    return findings


def sinks(log: Any, *more: Any) -> list[Any]:
    """A user's ``log`` of :func:`thinned.watch` (nothing, one, or several) and the trainer's own."""
    return [*(log if isinstance(log, (list, tuple)) else [] if log is None else [log]), *more]


def needs_ours(model: Any, what: str) -> None:
    """Raise :class:`thinned.InputError` where no layer of ours would draw for ``what``."""
    if not any(True for _ in dropout_modules(model)):
        raise InputError(
            f"{what} needs dropout of ours in the model, and there is none; call thinned.replace(model) first"
        )
