"""Tests are stricter than users: fixed seeds, and memory that torch leaves uninitialised is NaN."""

from __future__ import annotations

import sys

import pytest
import torch

# What shares a costly import or fixture runs in one process, with pytest -n and --dist loadgroup.
TOGETHER = {
    "tests/studies/": "studies", "tests/faces/test_keras": "keras", "tests/integrations/test_keras": "keras",
    "tests/integrations/test_data": "trainers", "tests/integrations/test_huggingface": "trainers",
    "tests/integrations/test_lightning": "trainers", "tests/integrations/test_skorch": "trainers",
    "tests/test_layers.py::test_onnx": "onnx",
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items):
    for item in items:
        for start, group in TOGETHER.items():
            if item.nodeid.startswith(start):
                item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    if "torch._dynamo" in sys.modules:  # what one test compiled does not count for the next
        torch._dynamo.reset()
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)
