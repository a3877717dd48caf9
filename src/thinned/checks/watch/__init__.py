"""What dropout does in a training loop, watched."""

from .watching import Watch, watch

__all__ = ["Watch", "watch"]
