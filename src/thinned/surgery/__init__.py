"""Finding and changing the dropout of existing models."""

from .applying import apply
from .edits import Edits
from .exposing import expose
from .insertion import insert
from .keying import key
from .modes import frozen, off, recording, replaying, sampling
from .policy import At, Policy, PolicyRule
from .rates import set_rate
from .replacing import replace
from .scaling import rescale
from .sites import Site, Sites, find
from .stripping import strip
from .thinning import thin

__all__ = [
    "At",
    "Edits",
    "Policy",
    "PolicyRule",
    "Site",
    "Sites",
    "apply",
    "expose",
    "find",
    "frozen",
    "insert",
    "key",
    "off",
    "recording",
    "replace",
    "replaying",
    "rescale",
    "sampling",
    "set_rate",
    "strip",
    "thin",
]
