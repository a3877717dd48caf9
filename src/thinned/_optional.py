"""The one sentence for a missing extra."""

from __future__ import annotations


def missing(error: ImportError, extra: str) -> str:
    """What to say where a package of an extra is not installed."""
    return f"{error.name or error} is not installed; install what this needs with: pip install 'thinned[{extra}]'"
