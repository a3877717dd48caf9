"""Every dropout in one algebra, the same mask everywhere, chosen by measuring.

Importing this imports neither torch nor anything else that is heavy: names are resolved when first
used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        algebra,
        checks,
        functional,
        integrations,
        keras,
        nn,
        presets,
        sklearn,
        studies,
        surgery,
        testing,
        train,
    )
    from ._errors import InputError
    from ._prediction import Prediction
    from .algebra import Drop, Key
    from .checks.live import check
    from .checks.watch import Watch, watch
    from .functional import explain
    from .nn import ModelKey, Tape, key_of, step
    from .predictions import predict
    from .presets import CATALOG
    from .studies import study
    from .surgery import (
        At,
        Policy,
        PolicyRule,
        apply,
        expose,
        find,
        frozen,
        insert,
        key,
        off,
        recording,
        replace,
        replaying,
        rescale,
        sampling,
        set_rate,
        strip,
        thin,
    )

__version__ = "0.1.0"

_HOME = {
    "InputError": "_errors",
    "Drop": "algebra",
    "Key": "algebra",
    "CATALOG": "presets",
    "check": "checks.live",
    "ModelKey": "nn",
    "Prediction": "_prediction",
    "predict": "predictions",
    "key": "surgery",
    "explain": "functional",
    "replaying": "surgery",
    "recording": "surgery",
    "key_of": "nn",
    "frozen": "surgery",
    "Tape": "nn",
    "off": "surgery",
    "sampling": "surgery",
    "step": "nn",
    "replace": "surgery",
    "rescale": "surgery",
    "find": "surgery",
    "expose": "surgery",
    "apply": "surgery",
    "Policy": "surgery",
    "PolicyRule": "surgery",
    "At": "surgery",
    "insert": "surgery",
    "set_rate": "surgery",
    "strip": "surgery",
    "thin": "surgery",
    "study": "studies",
    "Watch": "checks.watch",
    "watch": "checks.watch",
}
_MODULES = (
    "algebra",
    "checks",
    "functional",
    "integrations",
    "keras",
    "nn",
    "presets",
    "sklearn",
    "studies",
    "surgery",
    "testing",
    "train",
)

__all__ = [
    "CATALOG",
    "At",
    "Drop",
    "InputError",
    "Key",
    "ModelKey",
    "Policy",
    "PolicyRule",
    "Prediction",
    "Tape",
    "Watch",
    "algebra",
    "apply",
    "check",
    "checks",
    "explain",
    "expose",
    "find",
    "frozen",
    "functional",
    "insert",
    "integrations",
    "keras",
    "key",
    "key_of",
    "nn",
    "off",
    "predict",
    "presets",
    "recording",
    "replace",
    "replaying",
    "rescale",
    "sampling",
    "set_rate",
    "sklearn",
    "step",
    "strip",
    "studies",
    "study",
    "surgery",
    "testing",
    "thin",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is first used."""
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'thinned' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
