"""What the callbacks of several frameworks share."""

from __future__ import annotations

import warnings
from typing import Any

from ..checks.finding import Findings
from ..checks.live import check


def check_and_warn(model: Any, args: Any, named: Any) -> Findings:
    """The findings of :func:`thinned.check`, with a warning where there are any."""
    findings = check(model, *args, **named)
    if findings:
        warnings.warn(str(findings), stacklevel=3)
    return findings


def combine_logs(log: Any, *more: Any) -> list[Any]:
    """The argument ``log`` of :func:`thinned.watch` as a list, with more receivers at its end."""
    return [*(log if isinstance(log, (list, tuple)) else [] if log is None else [log]), *more]
