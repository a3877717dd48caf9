"""The live checks: a model and a batch are run, and known mistakes with dropout are seen by what
they do.
"""

from .ranks import same_masks_on_ranks
from .runner import check

__all__ = ["check", "same_masks_on_ranks"]
