"""Studies: a comparison of dropout with other regularizers on your own data.

Does dropout help, which kind, how much, at which layers, and is it better than the other
regularizers? Names are imported when they are first used: the worker processes that train need
neither pandas nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import study
    from .outputs import Result

__all__ = ["Result", "study"]


def __getattr__(name: str) -> object:
    if name == "study":
        from .api import study

        return study
    if name == "Result":
        from .outputs import Result

        return Result
    raise AttributeError(f"module 'thinned.studies' has no attribute {name!r}")
