"""Studies: does dropout help on your data, which kind, how much, where, and is it better than the
other regularizers.

Names are resolved when first used: the processes that train need neither pandas nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import study
    from .outputs import Result

__all__ = ["Result", "study"]


def __getattr__(name: str) -> Any:
    if name == "study":
        from .api import study

        return study
    if name == "Result":
        from .outputs import Result

        return Result
    raise AttributeError(f"module 'thinned.studies' has no attribute {name!r}")
