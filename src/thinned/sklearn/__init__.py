"""Dropout for scikit-learn: the multilayer perceptrons it has, with what they lack, and a search
that trains all at once.
"""

from __future__ import annotations

from .._optional import missing

try:
    import torch as _torch  # noqa: F401

    import sklearn as _sklearn
except ModuleNotFoundError as error:
    raise ImportError(missing(error, "sklearn")) from None
if tuple(int(part) for part in _sklearn.__version__.split(".")[:2]) < (1, 6):
    raise ImportError(
        f"scikit-learn {_sklearn.__version__} is too old, 1.6 is the first that serves: pip "
        f"install -U 'thinned[sklearn]'"
    )

from .classifier import DropoutClassifier
from .regressor import DropoutRegressor
from .search import DropoutSearchCV

__all__ = ["DropoutClassifier", "DropoutRegressor", "DropoutSearchCV"]
