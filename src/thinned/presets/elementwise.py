"""Specs that draw for each element, or for each unit of a batch."""

from __future__ import annotations

from typing import Literal

from ..algebra.drop import Drop
from ..algebra.fill import Constant
from ..algebra.law import Bernoulli, Gaussian, Uniform
from ..algebra.moments import SELU_SATURATION
from ..algebra.scale import MomentMatch, scale_of

TWO_SCALES = ("inverted", "classic")


def dropout(p: float = 0.5, scale: Literal["inverted", "classic"] = "inverted") -> Drop:
    """Dropout: zeroes each element independently with probability ``p``.

    Inverted: y = m x / (1 - p) while training, y = x in evaluation. Classic: y = m x while
    training, y = (1 - p) x in evaluation. In both, E[y] while training is the evaluation output;
    Var[y] = x^2 p / (1 - p) for inverted. Kept elements are scaled by 1 / (1 - p), never by p.
    The two are one method at different learning rates: a layer trained with one becomes the other
    when its weights are multiplied or divided by 1 - p. PyTorch and Keras have only the inverted
    form.

    Args:
        p: The probability of dropping, in [0, 1]; 0.5 is usual for hidden layers and 0.2 for
            inputs. The paper (and TensorFlow 1) write p for keeping.
        scale: "inverted" or "classic".

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range or unknown.

    Example:
        >>> dropout(0.2).law.mean()
        0.8

    Reference:
        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout: a simple way to
        prevent neural networks from overfitting", JMLR 15, sections 4 and 10.
    """
    return Drop(Bernoulli(p), scale=scale_of(scale, TWO_SCALES), name="dropout")


def batchwise_dropout(p: float = 0.5, scale: Literal["inverted", "classic"] = "inverted") -> Drop:
    """Batchwise dropout: drops the same units in all examples of a minibatch.

    There is one draw for each unit, on the layout ``b *``, so whole columns of the next product are
    known to be zero and can be left out. Gradients are noisier than those of dropout at the same
    rate, because examples no longer average over masks, so rates are smaller. The code of the
    authors keeps exactly n (1 - p) units, rounded down, and scales classically; here draws are
    independent.

    Args:
        p: The probability of dropping, in [0, 1].
        scale: "inverted" or "classic".

    Returns:
        The spec.

    Raises:
        InputError: Where an argument is out of range or unknown.

    Example:
        >>> batchwise_dropout(0.5).per
        '*'

    Reference:
        Graham, Reizenstein, Robinson 2015, "Efficient batchwise dropout training using
        submatrices".
    """
    return Drop(Bernoulli(p), per="*", scale=scale_of(scale, TWO_SCALES), name="batchwise_dropout")


def gaussian_dropout(p: float = 0.5) -> Drop:
    """Gaussian dropout: multiplies each element by N(1, p / (1 - p)) while training.

    Evaluation is y = x. The mean and variance of y are those of inverted dropout at the rate ``p``.
    Nothing is zeroed, so no computation is saved. At rate 1 the layer of Keras divides by zero;
    this function raises instead.

    Args:
        p: The rate of the dropout with the same variance, in [0, 1).

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1).

    Example:
        >>> gaussian_dropout(0.5).law.var()
        1.0

    Reference:
        Srivastava et al. 2014, section 10.
    """
    return Drop(Gaussian(p), name="gaussian_dropout")


def uniform_dropout(beta: float = 0.1) -> Drop:
    """Uniform dropout (Uout): y = x (1 + r) with r ~ U(-beta, beta) while training.

    Evaluation is y = x. It is meant for use before batch normalization: it shifts the variance of a
    zero-mean input by only 3 / (3 + beta^2) (0.997 at 0.1), where dropout shifts it by 1 - p.

    Args:
        beta: Half the width of the interval, at least 0.

    Returns:
        The spec.

    Raises:
        InputError: Where ``beta`` is below 0.

    Example:
        >>> round(uniform_dropout(0.1).law.var(), 6)
        0.003333

    Reference:
        Li, Chen, Hu, Yang 2019, "Understanding the disharmony between dropout and batch
        normalization by variance shift", section 5.
    """
    return Drop(Uniform(beta), name="uniform_dropout")


def alpha_dropout(p: float = 0.05) -> Drop:
    """Alpha dropout: sets dropped units to SELU's negative saturation, then scales and shifts.

    y = a (m x + (1 - m) s) + b with s = -1.7581, a = ((1 - p) (1 + p s^2))^(-1/2) and b = -a p s,
    so an input of mean 0 and variance 1 keeps both exactly. A single element is not unbiased:
    E[y|x] = a (1 - p) x. Use it with SELU and LeCun-normal weights; with other activations it loses
    its purpose. At p = 1 the output is zero.

    Args:
        p: The probability of dropping, in [0, 1]; 0.05 to 0.1 in the paper.

    Returns:
        The spec.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> drop = alpha_dropout(0.1)
        >>> from thinned.algebra.plan import coefficients
        >>> [round(c, 6) for c in coefficients(drop, 0.1)[:2]]
        [0.921285, 0.161971]

    Reference:
        Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks".
    """
    return Drop(
        Bernoulli(p), fill=Constant(SELU_SATURATION), scale=MomentMatch(), name="alpha_dropout"
    )
