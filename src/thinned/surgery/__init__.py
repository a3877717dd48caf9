"""Finding and changing the dropout of models that exist."""

from .edits import Edits
from .insertion import insert
from .rates import set_rate, strip
from .scaling import rescale
from .sites import Site, Sites, find
from .swap import replace
from .thinning import thin

__all__ = ["Edits", "Site", "Sites", "find", "insert", "replace", "rescale", "set_rate", "strip", "thin"]
