"""Finding and changing the dropout of models that exist."""

from .edits import Edits
from .scaling import rescale
from .sites import Site, Sites, find
from .swap import replace

__all__ = ["Edits", "Site", "Sites", "find", "replace", "rescale"]
