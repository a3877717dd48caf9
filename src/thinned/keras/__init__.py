"""The Keras 3 API: dropout layers, and tools for models, on TensorFlow, JAX and torch.

``layers``: the layers. ``find``: where a model draws. ``check``: the known mistakes. ``apply``: a
copy of a model with dropout added. ``set_rate``: the rates set in place. ``predict`` and
``sampling``: Monte Carlo dropout, with batch normalization in inference. ``ScheduleCallback``:
rates that change while training.

Noise has the same distribution as in the torch API, but other random bits. Needs ``pip install
'thinned[keras]'`` and a backend, chosen by ``KERAS_BACKEND`` as always in Keras.
"""

from __future__ import annotations

from .._optional import missing

try:
    import keras as _keras
except ImportError as error:
    if error.name == "keras":
        raise ImportError(missing(error, "keras"), name="keras") from None
    raise ImportError(
        f"Keras needs {error.name or error}, which is not installed; set KERAS_BACKEND to "
        "a backend that is: tensorflow, jax or torch",
        name=error.name,
    ) from None

from .._prediction import Prediction
from . import layers
from .health import check
from .prediction import predict, sampling
from .rates import RateChange, RateChanges, set_rate
from .schedules import ScheduleCallback
from .sites import Site, Sites, find
from .surgery import apply

__all__ = [
    "Prediction",
    "RateChange",
    "RateChanges",
    "ScheduleCallback",
    "Site",
    "Sites",
    "apply",
    "check",
    "find",
    "layers",
    "predict",
    "sampling",
    "set_rate",
]

del _keras
