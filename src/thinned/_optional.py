"""The message for a missing optional dependency."""

from __future__ import annotations


def missing(error: ImportError, extra: str) -> str:
    """Return the message for a package of the extra ``extra`` that is not installed."""
    return (
        f"{error.name or error} is not installed; install what this needs with: "
        f"pip install 'thinned[{extra}]'"
    )
