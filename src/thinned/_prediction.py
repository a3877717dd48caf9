"""The record of a prediction with uncertainty, for every framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Statistics over the passes of a model, as float64 arrays; what does not apply is None.

    Args:
        mean: The mean over the passes, in the shape of the output of the model; for logits, of the
            probabilities; for Gaussian heads, of the means, without the last axis.
        std: The standard deviation over the passes, with the divisor n - 1 (for exact enumeration,
            of the distribution itself), in the shape of ``mean``; for Gaussian heads the root of
            ``aleatoric`` + ``epistemic``. None after a single pass without noise.
        quantiles: The requested quantiles over the passes, [quantiles, b, ...].
        entropy: The entropy of the mean probabilities, in nats, [b, ...]; None for values.
        mutual_information: The entropy of the arithmetic mean of the probabilities minus the mean
            entropy of the single passes, in nats: how much the passes disagree (BALD). None for
            values.
        variation_ratio: The share of the passes that predict another class than the most frequent
            one. None for values.
        aleatoric: For Gaussian heads, the mean of the variances.
        epistemic: For Gaussian heads, the variance of the means over the passes.
        samples: The outputs of all passes, [samples, b, ...]; None without ``keep``.
        passes: The number of passes for each example, int64 [b].

    Example:
        >>> import numpy as np
        >>> Prediction(mean=np.ones(3), std=np.zeros(3)).std.tolist()
        [0.0, 0.0, 0.0]

    Reference:
        Gal, Islam, Ghahramani 2017, "Deep Bayesian active learning with image data"; Kendall and
        Gal 2017, "What uncertainties do we need in Bayesian deep learning for computer vision?"
    """

    mean: Array
    std: Array | None = None
    quantiles: Array | None = None
    entropy: Array | None = None
    mutual_information: Array | None = None
    variation_ratio: Array | None = None
    aleatoric: Array | None = None
    epistemic: Array | None = None
    samples: Array | None = None
    passes: NDArray[np.int64] | None = None
