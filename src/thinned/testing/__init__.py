"""The public contract suites: run them on your own specs and layers."""

from .contract import CHECKS, Case
from .layers import LAYER_CHECKS, LayerCase
from .statistics import assert_fraction, assert_mean

__all__ = [
    "CHECKS",
    "LAYER_CHECKS",
    "Case",
    "LayerCase",
    "assert_fraction",
    "assert_mean",
]
