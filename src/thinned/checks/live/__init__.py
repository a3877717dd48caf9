"""Live checks: run a model on a batch and detect known mistakes with dropout by their effects."""

from .ranks import same_masks_on_ranks
from .runner import check

__all__ = ["check", "same_masks_on_ranks"]
