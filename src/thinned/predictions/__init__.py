"""Predictions with uncertainty, and measures of how good they are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predicting import predict

__all__ = ["predict"]


def __getattr__(name: str) -> Any:
    """Import ``predict`` when it is first used: the measures need no torch."""
    if name == "predict":
        return importlib.import_module(".predicting", __name__).predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
