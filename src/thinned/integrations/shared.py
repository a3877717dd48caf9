"""What the callbacks of several frameworks share."""

from __future__ import annotations

import warnings
from typing import Any

from ..checks.finding import Findings
from ..checks.live import check
from .attempts import Attempts


def check_and_warn(model: Any, args: Any, named: Any, forward: Any = None) -> Findings:
    """The findings of :func:`thinned.check`, with a warning where there are any.

    A model that cannot be checked is reported by a warning too, and has no findings.
    """
    found = Attempts("the check")(check, model, *args, forward=forward, **named)
    if found:
        warnings.warn(str(found), stacklevel=3)
    return Findings() if found is None else found


def combine_logs(log: Any, *more: Any) -> list[Any]:
    """The argument ``log`` of :func:`thinned.watch` as a list, with more receivers at its end."""
    return [*(log if isinstance(log, (list, tuple)) else [] if log is None else [log]), *more]
