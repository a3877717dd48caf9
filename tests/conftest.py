"""Tests are stricter than users: fixed seeds, and memory that torch leaves uninitialised is NaN."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)
