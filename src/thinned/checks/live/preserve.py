"""Copies of inputs and restored models, so that a pass changes nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...surgery.model_access import tensors_in
from ...surgery.model_call import copy_inputs as copy_tensors
from ...surgery.preserve import restoring as preserve_state

__all__ = ["copy_tensors", "float_tensors", "preserve_state"]


def float_tensors(value: Any) -> list[Tensor]:
    """The floating-point and complex tensors in nested containers."""
    return [t for t in tensors_in(value) if t.is_floating_point() or t.is_complex()]
