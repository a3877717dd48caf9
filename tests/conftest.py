"""Tests are stricter than users: fixed seeds, and memory that torch does not initialize is NaN."""

from __future__ import annotations

import random
import sys

import pytest
import torch

from thinned.engines.torch import native, ops


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    random.seed(0)  # by which Keras seeds what has no seed
    if "torch._dynamo" in sys.modules:  # what one test compiled does not count for the next
        torch._dynamo.reset()
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)


def instruction_sets() -> list[str]:
    if ops.missing:
        return []
    found = []
    for name in native.INSTRUCTIONS:
        try:
            native.use(name)
        except RuntimeError:
            continue
        found.append(name)
    native.use(None)
    return found


@pytest.fixture(params=instruction_sets() or ["none"])
def instructions(request):
    """Each instruction set of the native kernels that runs here, in use."""
    if request.param == "none":
        pytest.skip(ops.missing)
    native.use(request.param)
    yield request.param
    native.use(None)
