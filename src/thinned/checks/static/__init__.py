"""Mistakes that source shows: files and notebooks are read, never run, with the standard library
alone.
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
