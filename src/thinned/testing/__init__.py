"""The public contract suite: run it on your own points."""

from .contract import CHECKS, Case
from .statistics import assert_fraction, assert_mean

__all__ = ["CHECKS", "Case", "assert_fraction", "assert_mean"]
