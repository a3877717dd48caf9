"""Errors of what a callback adds to a training, which end the addition and not the training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


class Attempts:
    """Calls what a callback does next to a training, and lets no error of it end the training.

    The first error is reported by a warning, and nothing is called after it.

    Args:
        what: What ends then, for the warning, such as "watching".
    """

    def __init__(self, what: str) -> None:
        self.what, self.failed = what, False

    def __call__(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Return the result of ``function``; None where it raised, or one before has."""
        if self.failed:
            return None
        try:
            return function(*args, **named)
        except Exception as error:  # noqa: BLE001 - the training goes on after any error
            self.failed = True
            text = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"thinned: {self.what} ends here, and the training goes on: {text}", stacklevel=3
            )
            return None
