"""Context managers that say what the hosts of a model do, and put everything back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn

from ..functional import Mode
from .host import hosts


@contextmanager
def _mode(model: nn.Module, mode: Mode) -> Iterator[None]:
    before = [(host, host.mode_override) for _, host in hosts(model)]
    for host, _ in before:
        host.mode_override = mode
    try:
        yield
    finally:
        for host, was in before:
            host.mode_override = was


def sampling(model: nn.Module) -> AbstractContextManager[None]:
    """Within: hosts draw masks whatever ``model.training`` says. Monte Carlo dropout that leaves BatchNorm alone."""
    return _mode(model, "sample")


def off(model: nn.Module) -> AbstractContextManager[None]:
    """Within: hosts return their input, not even scaled."""
    return _mode(model, "off")
