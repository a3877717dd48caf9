"""Changing the dropout of models that exist."""

from .edits import Edits
from .swap import replace

__all__ = ["Edits", "replace"]
