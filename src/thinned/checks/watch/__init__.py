"""Watch what dropout does in a training loop.

The verdicts need no torch, so it is imported only when :func:`watch` is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .watching import Watch, watch

__all__ = ["Watch", "watch"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import watching

    return getattr(watching, name)
