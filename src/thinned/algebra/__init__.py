"""What a dropout is: specs, noise distributions, shared mask axes, scales, schedules and keys.

It needs only the standard library.
"""

from .drop import Drop
from .fill import Constant, Zero
from .key import Key, stream_of
from .law import Bernoulli, Gaussian, Uniform
from .moments import moments
from .per import Block
from .plan import Plan, plan
from .scale import Classic, Inverted, KeptFraction, MomentMatch, Unscaled
from .schedule import Annealed, Cosine, Curriculum, Early, Late, Linear

__all__ = [
    "Annealed",
    "Bernoulli",
    "Block",
    "Classic",
    "Constant",
    "Cosine",
    "Curriculum",
    "Drop",
    "Early",
    "Gaussian",
    "Inverted",
    "KeptFraction",
    "Key",
    "Late",
    "Linear",
    "MomentMatch",
    "Plan",
    "Uniform",
    "Unscaled",
    "Zero",
    "moments",
    "plan",
    "stream_of",
]
