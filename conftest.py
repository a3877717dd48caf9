"""The Keras API is collected where Keras is installed, on KERAS_BACKEND or the first backend that
is installed.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

BACKENDS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow"}

if importlib.util.find_spec("keras") is None:
    collect_ignore_glob = ["src/thinned/keras/*", "src/thinned/engines/keras.py"]
elif "KERAS_BACKEND" not in os.environ:
    os.environ["KERAS_BACKEND"] = next(
        name for name, package in BACKENDS.items() if importlib.util.find_spec(package)
    )

if importlib.util.find_spec("skorch") is None:
    collect_ignore = ["src/thinned/integrations/skorch.py"]

if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("triton"):
    import triton  # noqa: F401  # before TensorFlow: the other way round their two LLVMs end the process


def pytest_collection_modifyitems(items):
    """Keras on torch converts arrays in a way that NumPy 2.4 warns of."""
    ignore = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    for item in items:
        if "keras" in item.path.with_suffix("").parts:
            item.add_marker(ignore)
