"""What dropout does in a training loop, watched. Verdicts need no torch, so that is not imported
before it is asked for.
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
