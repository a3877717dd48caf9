"""Finding and changing the dropout of models that exist."""

from .edits import Edits
from .exposing import expose
from .insertion import insert
from .rates import set_rate
from .scaling import rescale
from .sites import Site, Sites, find
from .stripping import strip
from .swap import replace

__all__ = ["Edits", "Site", "Sites", "expose", "find", "insert", "replace", "rescale", "set_rate", "strip"]
