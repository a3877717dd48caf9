"""Checks for known mistakes with dropout, in source files and in running models."""

from .finding import Change, Finding, Findings
from .rules import LEFT_OUT, RULES, CheckRule
from .static import check_paths, check_source

__all__ = [
    "LEFT_OUT",
    "RULES",
    "Change",
    "CheckRule",
    "Finding",
    "Findings",
    "check_paths",
    "check_source",
]
