"""Tests are stricter than users: fixed seeds, and memory that torch leaves uninitialised is NaN."""

from __future__ import annotations

import random
import sys

import pytest
import torch


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    random.seed(0)  # by which Keras seeds what has no seed
    if "torch._dynamo" in sys.modules:  # what one test compiled does not count for the next
        torch._dynamo.reset()
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)
