"""Points whose coins fall on single elements."""

from __future__ import annotations

from typing import Literal

from .._errors import unknown
from ..algebra.drop import Drop
from ..algebra.fill import Constant
from ..algebra.law import Bernoulli, Gaussian, Uniform
from ..algebra.moments import SELU_SATURATION
from ..algebra.scale import Classic, Inverted, MomentMatch, Scale

SCALES: dict[str, Scale] = {"inverted": Inverted(), "classic": Classic()}


def scale_of(name: str) -> Scale:
    """``"inverted"`` or ``"classic"`` as a scale."""
    if name not in SCALES:
        raise unknown("scale", name, SCALES)
    return SCALES[name]


def dropout(p: float = 0.5, scale: Literal["inverted", "classic"] = "inverted") -> Drop:
    """Dropout: each element is zeroed with probability ``p``, on its own.

    Inverted: y = m x / (1 - p) while training, y = x in evaluation. Classic: y = m x while
    training, y = (1 - p) x in evaluation. Both have E[y] equal to their evaluation; Var[y] = x^2 p
    / (1 - p) for inverted. Survivors are scaled by 1 / (1 - p), never by p. The two are one method
    at different learning rates: a layer trained under one becomes the other when its weights are
    multiplied or divided by 1 - p.

    ``p`` is the probability of dropping, in [0, 1]; 0.5 is usual for hidden layers and 0.2 for
    inputs. The paper (and TensorFlow 1) write p for keeping. PyTorch and Keras have only the
    inverted form.

    >>> dropout(0.2).law.mean()
    0.8

    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to prevent
    neural networks from overfitting", JMLR 15, sections 4 and 10.
    """
    return Drop(
        Bernoulli(p),
        scale=scale_of(scale),
        name="dropout",
    )


def batchwise_dropout(p: float = 0.5, scale: Literal["inverted", "classic"] = "inverted") -> Drop:
    """Batchwise dropout: one thinned network for the whole minibatch, a coin for each unit instead
    of each unit and example.

    Layout ``b *``; ``p`` in [0, 1]. Gradients have more noise than dropout's at the same rate,
    since examples no longer average over masks, so rates are smaller. What it is for is that whole
    columns of the next product are known to be zero. The authors' code keeps exactly n (1 - p)
    units, rounded down; here coins are independent. It uses classic scaling.

    >>> batchwise_dropout(0.5).per
    '*'

    Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using submatrices".
    """
    return Drop(Bernoulli(p), per="*", scale=scale_of(scale), name="batchwise_dropout")


def gaussian_dropout(p: float = 0.5) -> Drop:
    """Gaussian dropout: y = x * N(1, p / (1 - p)) while training, y = x in evaluation.

    Its mean and variance are those of inverted dropout at rate ``p``, in [0, 1). Nothing is zeroed,
    so it saves no computation, and Keras's layer divides by zero at rate 1 where this raises
    :class:`thinned.InputError`.

    >>> gaussian_dropout(0.5).law.var()
    1.0

    Srivastava et al. 2014, section 10.
    """
    return Drop(Gaussian(p), name="gaussian_dropout")


def uniform_dropout(beta: float = 0.1) -> Drop:
    """Uout: y = x (1 + r), r ~ U(-beta, beta), while training; y = x in evaluation.

    Made for use before batch normalisation, where it shifts the variance of a zero-mean input by
    only 3 / (3 + beta^2) (0.997 at 0.1), against 1 - p for dropout. ``beta`` is at least 0.

    >>> round(uniform_dropout(0.1).law.var(), 6)
    0.003333

    Li, Chen, Hu, Yang 2019, "Understanding the disharmony between dropout and batch normalization
    by variance shift".
    """
    return Drop(Uniform(beta), name="uniform_dropout")


def alpha_dropout(p: float = 0.05) -> Drop:
    """Alpha dropout: dropped units go to SELU's negative saturation, then everything is scaled and
    shifted.

    y = a (m x + (1 - m) s) + b with s = -1.7581, a = ((1 - p) (1 + p s^2))^(-1/2), b = -a p s: an
    input of mean 0 and variance 1 keeps both exactly. A single element is not unbiased: E[y|x] = a
    (1 - p) x. Use it with SELU and LeCun-normal weights, ``p`` of 0.05 to 0.1; with other
    activations its purpose is lost. At p = 1 all is zero.

    >>> drop = alpha_dropout(0.1)
    >>> from thinned.algebra.plan import coefficients
    >>> [round(c, 6) for c in coefficients(drop, 0.1)[:2]]
    [0.921285, 0.161971]

    Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks".
    """
    return Drop(
        Bernoulli(p), fill=Constant(SELU_SATURATION), scale=MomentMatch(), name="alpha_dropout"
    )
