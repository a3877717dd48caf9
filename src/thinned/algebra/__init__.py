"""What a dropout is: points, laws, coins, scales, and the key that a mask belongs to. Standard library only."""

from .drop import Drop
from .fill import Constant, Zero
from .key import Key, stream_of
from .law import Bernoulli, Gaussian, Uniform
from .moments import moments
from .per import Block
from .plan import Plan, plan
from .scale import Classic, Inverted, MomentMatch, Realised

__all__ = [
    "Bernoulli",
    "Block",
    "Classic",
    "Constant",
    "Drop",
    "Gaussian",
    "Inverted",
    "Key",
    "MomentMatch",
    "Plan",
    "Realised",
    "Uniform",
    "Zero",
    "moments",
    "plan",
    "stream_of",
]
