"""The Keras face is collected where Keras is installed, on KERAS_BACKEND or the first backend that
is there.
"""

from __future__ import annotations

import importlib.util
import os

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
