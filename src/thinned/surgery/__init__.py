"""Changing the dropout of models that exist."""

from .edits import Edits
from .replace import replace

__all__ = ["Edits", "replace"]
