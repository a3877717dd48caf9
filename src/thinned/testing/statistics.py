"""Statistical tests with a stated alpha.

With keyed masks they are deterministic: a key always passes or always fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

ALPHA = 1e-6


def two_sided(z: float) -> float:
    """Return the probability that a standard normal is at least as far from 0 as ``z``."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def assert_fraction(count: int, total: int, p: float, alpha: float = ALPHA) -> None:
    """Assert that ``count`` successes in ``total`` trials are consistent with probability ``p``.

    It is a two-sided z test, and exact where p is 0 or 1.

    Args:
        count: The number of successes.
        total: The number of independent trials.
        p: The probability of success, in [0, 1].
        alpha: The probability that correct draws fail the test.

    Raises:
        AssertionError: Where the count is too far from ``total * p``.

    Example:
        >>> assert_fraction(5_030, 10_000, 0.5)
    """
    if p in (0.0, 1.0):
        assert count == p * total, f"{count} of {total} at probability {p}"
        return
    z = (count - total * p) / math.sqrt(total * p * (1.0 - p))
    assert two_sided(z) >= alpha, (
        f"{count} of {total} is {count / total:.6f}, not {p:.6f} (z = {z:.1f}, alpha = {alpha})"
    )


def assert_mean(values: Sequence[float], expected: float, alpha: float = ALPHA) -> None:
    """Assert that the mean of independent ``values`` is consistent with ``expected``.

    It is a two-sided z test with the standard deviation of the values.

    Args:
        values: The values, at least two.
        expected: The mean of their distribution.
        alpha: The probability that correct draws fail the test.

    Raises:
        AssertionError: Where the mean is too far from ``expected``.

    Example:
        >>> assert_mean([0.9, 1.1, 1.05, 0.97], 1.0)
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
