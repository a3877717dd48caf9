"""The closed form of a rectified normal."""

from __future__ import annotations

import math

import numpy as np
import torch

from thinned import functional
from thinned.algebra.moments import rectified_mean


def test_rectified_closed_form():
    """E max(0, z) by integration on a fine grid."""
    for mean, std in ((0.0, 1.0), (1.3, 0.4), (-2.0, 1.5), (0.7, 0.0)):
        z = np.linspace(mean - 12 * std, mean + 12 * std, 400_001) if std else np.array([mean])
        density = (
            np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
            if std
            else np.ones(1)
        )
        expected = np.trapezoid(np.maximum(z, 0) * density, z) if std else max(mean, 0.0)
        assert math.isclose(rectified_mean(mean, std), expected, rel_tol=1e-8)
        got = functional.activations.rectified_mean(
            torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        )
        assert math.isclose(got.item(), rectified_mean(mean, std), rel_tol=1e-12, abs_tol=1e-300)
