"""From the outputs of passes to a :class:`thinned.Prediction`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError
from .._prediction import Array, Prediction

Outputs = Literal["auto", "probabilities", "logits", "binary", "values", "gaussian"]
KINDS = ("auto", "probabilities", "logits", "binary", "values", "gaussian")
FIRST_LOOK = 32  # draws before ``until`` is first compared
_ALPHA = 0.05
_TOLERANCE = 1e-2  # of sums of probabilities, also of half precision


class Collector:
    """Collects one output of a model batch by batch.

    Args:
        kind: What the output is along its last axis.
        quantiles: The quantiles to compute over the passes.
        keep: Whether to keep all passes.
        geometric: Whether ``mean`` is the normalized geometric mean of probabilities.
    """

    def __init__(
        self, kind: Outputs, quantiles: Sequence[float], keep: bool, geometric: bool = False
    ) -> None:
        self.kind: Outputs = kind
        self.quantiles, self.keep, self.geometric = tuple(quantiles), keep, geometric
        self.batches: list[dict[str, Any]] = []

    def values(self, y: NDArray[Any]) -> Array:
        """The passes [n, b, ...] as what is averaged: logits become probabilities."""
        y = np.asarray(y, dtype=np.float64)
        if self.kind == "auto":
            self.kind = "probabilities" if _sums_to_one(y) else "values"
            self.guessed = True
        if self.kind == "probabilities" and not _sums_to_one(y):
            if getattr(self, "guessed", False):
                self.kind = "values"
            else:
                raise InputError(
                    'outputs="probabilities" needs numbers of at least 0 that sum to 1 along the '
                    f"last axis, but got outputs {_range(y)}; for numbers before a softmax write "
                    'outputs="logits", otherwise outputs="values"'
                )
        if self.kind == "binary" and not ((y >= 0) & (y <= 1)).all():
            raise InputError(
                f'outputs="binary" needs probabilities in [0, 1], but got outputs {_range(y)}; '
                "apply torch.sigmoid at the end of the model"
            )
        if self.kind == "gaussian" and (y.ndim < 3 or y.shape[-1] != 2):
            raise InputError(
                'outputs="gaussian" needs a last axis of 2, the mean and the log variance, but got '
                f"the shape {list(y.shape[1:])}"
            )
        if self.kind == "logits":
            return np.exp(_log_softmax(y))
        if self.geometric and self.kind in ("values", "gaussian"):
            raise InputError(
                'method="geometric" needs probabilities or logits, but these outputs are '
                f'{self.kind}; name what they are by outputs="logits", "probabilities" or '
                '"binary", or use method="monte carlo"'
            )
        return y

    def add(self, y: NDArray[Any], weights: Array | None = None, single: bool = False) -> None:
        """Add all passes of a batch, [n, b, ...], with their probabilities where they differ.

        ``single``: one pass without noise, which has no spread.
        """
        values = self.values(y)
        n = len(values)
        share = np.full(n, 1.0 / n) if weights is None else weights
        found: dict[str, Any] = {}
        heads = values[..., 0] if self.kind == "gaussian" else values
        found["mean"] = _average(heads, share)
        exact = weights is not None
        spread = _average((heads - found["mean"]) ** 2, share) * (1 if exact else n / max(n - 1, 1))
        if self.kind == "gaussian":
            found["aleatoric"] = _average(np.exp(values[..., 1]), share)
            found["epistemic"] = None if single else spread
            spread = spread + found["aleatoric"]
        found["std"] = None if single and self.kind != "gaussian" else np.sqrt(spread)
        if self.quantiles and not single:
            found["quantiles"] = _quantiles(heads, self.quantiles, weights)
        if self.kind in ("probabilities", "logits", "binary"):
            self._add_classes(found, y, values, share, single)
        if self.keep:
            found["samples"] = values
        found["passes"] = np.full(values.shape[1], n, dtype=np.int64)
        self.batches.append(found)

    def _add_classes(
        self, found: dict[str, Any], y: NDArray[Any], values: Array, share: Array, single: bool
    ) -> None:
        binary = self.kind == "binary"
        classes = _both_classes(values) if binary else values
        mean = _average(classes, share)
        total = _entropy(mean)
        if not single:
            inner = _average(_entropy(classes), share)
            found["mutual_information"] = np.maximum(total - inner, 0.0)
            chosen = classes.argmax(-1)
            votes = [_average(chosen == k, share) for k in range(classes.shape[-1])]
            found["variation_ratio"] = np.maximum(1.0 - np.max(votes, axis=0), 0.0)
        if self.geometric:
            raw = np.asarray(y, dtype=np.float64)
            with np.errstate(divide="ignore"):
                logs = _log_softmax(raw) if self.kind == "logits" else np.log(classes)
            mean = np.exp(_log_softmax(_average(logs, share)))
            found["mean"] = mean[..., 1].reshape(found["mean"].shape) if binary else mean
            total = _entropy(mean)
        found["entropy"] = total

    def result(self) -> Prediction:
        """The statistics of all batches."""
        joined: dict[str, Any] = {}
        for name in Prediction.__dataclass_fields__:
            parts = [batch[name] for batch in self.batches if batch.get(name) is not None]
            if len(parts) == len(self.batches):
                axis = 1 if name in ("quantiles", "samples") else 0
                joined[name] = np.concatenate(parts, axis=axis)
        if self.kind == "values":  # where a later batch showed that they are no probabilities
            for name in ("entropy", "mutual_information", "variation_ratio"):
                joined.pop(name, None)
        return Prediction(**joined)


def error_bound(values: Array) -> float:
    """How far the mean of the draws [n, ...] is from its expectation, for the worst element.

    For draws 32, 64, 128 and so on: at each of these looks an interval by Student's t distribution,
    with the error rate 0.05 spent over the looks k = 1, 2, ... as 0.05 / (k (k + 1)). So for each
    element all intervals together miss with a probability of at most 0.05, as far as the mean of 32
    draws is normal. With stratified draws the true error is smaller than that of independent ones,
    from which it is computed, or larger by at most 1/30 in variance.
    """
    n = len(values)
    look = max(1, round(math.log2(n / FIRST_LOOK)) + 1)
    quantile = _student(1.0 - _ALPHA / (2 * look * (look + 1)), n - 1)
    return float(quantile * (values.std(0, ddof=1) / math.sqrt(n)).max())


def _student(level: float, freedom: int) -> float:
    """The quantile of Student's t distribution by its expansion, exact to 1e-4 from 31 degrees."""
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _average(values: NDArray[Any], share: Array) -> Array:
    averaged: Array = np.tensordot(share, values, axes=1)
    return averaged


def _range(y: Array) -> str:
    return f"from {y.min():.4g} to {y.max():.4g} of shape {list(y.shape[1:])}"


def _sums_to_one(y: Array) -> bool:
    """Whether the outputs of passes [n, b, ...] are probabilities along their last axis."""
    return (
        y.ndim > 2
        and y.shape[-1] > 1
        and bool((y >= 0).all() and np.allclose(y.sum(-1), 1.0, atol=_TOLERANCE))
    )


def _log_softmax(y: Array) -> Array:
    top = y.max(-1, keepdims=True)
    shifted = y - np.where(np.isfinite(top), top, 0.0)
    logs: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return logs


def _both_classes(p: Array) -> Array:
    """(1 - p, p) of one probability; a last axis of 1 is not kept."""
    p = p[..., 0] if p.ndim > 2 and p.shape[-1] == 1 else p
    return np.stack((1.0 - p, p), -1)


def _entropy(p: Array) -> Array:
    safe = np.where(p > 0, p, 1.0)
    summed: Array = -(safe * np.log(safe)).sum(-1)
    return summed


def _quantiles(values: Array, levels: tuple[float, ...], weights: Array | None) -> Array:
    if weights is None:
        return np.quantile(values, levels, axis=0)
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    reached = np.cumsum(weights[order], axis=0)
    found = [
        np.take_along_axis(
            ordered, np.minimum((reached < level - 1e-12).sum(0), len(values) - 1)[None], axis=0
        )[0]
        for level in levels
    ]
    return np.stack(found)
