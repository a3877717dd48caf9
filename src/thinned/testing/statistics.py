"""Tests of randomness with a stated alpha. With keyed masks they are deterministic: a fixed key
passes or fails for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ALPHA = 1e-6


def two_sided(z: float) -> float:
    """The probability of a standard normal at least as far from 0 as ``z``."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def assert_fraction(count: int, total: int, p: float, alpha: float = ALPHA) -> None:
    """``count`` of ``total`` independent trials succeed with probability ``p``: a z test, exact
    where p is 0 or 1.
    """
    if p in (0.0, 1.0):
        assert count == p * total, f"{count} of {total} at probability {p}"
        return
    z = (count - total * p) / math.sqrt(total * p * (1.0 - p))
    assert two_sided(z) >= alpha, (
        f"{count} of {total} is {count / total:.6f}, not {p:.6f} (z = {z:.1f}, alpha = {alpha})"
    )


def assert_mean(values: Sequence[float], expected: float, alpha: float = ALPHA) -> None:
    """Independent ``values`` have the mean ``expected``: a z test with their own standard
    deviation.
    """
    n = len(values)
    average = math.fsum(values) / n
    spread = math.sqrt(math.fsum((v - average) ** 2 for v in values) / (n - 1))
    if spread == 0.0:
        assert math.isclose(average, expected, rel_tol=1e-6, abs_tol=1e-9), (
            f"mean {average}, not {expected}"
        )
        return
    z = (average - expected) / (spread / math.sqrt(n))
    assert two_sided(z) >= alpha, (
        f"mean {average:.6g}, not {expected:.6g} (z = {z:.1f}, n = {n}, alpha = {alpha})"
    )
