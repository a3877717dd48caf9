"""Static checks: read files and notebooks, without running them, and find known mistakes. They need
the standard library alone.
"""

from .fix import Fixed, fixed_paths, fixed_source
from .run import check_paths, check_source, checked, chosen
from .table import STATIC

__all__ = [
    "STATIC",
    "Fixed",
    "check_paths",
    "check_source",
    "checked",
    "chosen",
    "fixed_paths",
    "fixed_source",
]
