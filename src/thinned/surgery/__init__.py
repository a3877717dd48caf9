"""Changing the dropout of models that exist."""

from .edits import Edits
from .scaling import rescale
from .swap import replace

__all__ = ["Edits", "replace", "rescale"]
