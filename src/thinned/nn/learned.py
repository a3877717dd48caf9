"""The base of the layers that learn their noise, and the sum of their KL terms."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .._errors import InputError, whole
from .module import DropoutModule, dropout_modules


class Learned(DropoutModule, ABC):
    """Base of the layers that learn their noise and add a KL term to the loss. Abstract.

    Attributes:
        divergence_is_per_example: Whether :meth:`divergence` is a mean over the examples of a
            batch, rather than one term for the whole training set.
    """

    divergence_is_per_example = False

    @abstractmethod
    def divergence(self) -> Tensor:
        """Compute the KL term in nats, a tensor without axes."""


def divergence(model: nn.Module, examples: int = 1) -> Tensor:
    """Sum up what the learned dropout of ``model`` adds to the mean loss of an example, in nats.

    The KL terms of rates and weights count once for the training set, so their sum is divided by
    the number of its examples. The term of :class:`InformationDropout` is already a mean over the
    examples of the last batch.

    Args:
        model: A model with layers that learn their noise, such as :class:`ConcreteDropout`.
        examples: The number of examples of the training set, at least 1.

    Returns:
        The sum, a tensor without axes.

    Raises:
        InputError: Where the model has no layer that learns its noise, or ``examples`` is below 1.

    Example:
        >>> import thinned.nn as tnn
        >>> model = nn.Sequential(nn.Linear(8, 8), tnn.ConcreteDropout(8, p=0.5))
        >>> loss_term = tnn.divergence(model, examples=1000)
        >>> round(loss_term.item(), 4)
        -0.0055
    """
    found = [module for _, module in dropout_modules(model) if isinstance(module, Learned)]
    if not found:
        raise InputError(
            "this model has no dropout that is learned; build it with thinned.nn.ConcreteDropout "
            "or another layer that learns its noise"
        )
    examples = whole(examples, "examples", 1)
    return torch.stack(
        [m.divergence() / (1 if m.divergence_is_per_example else examples) for m in found]
    ).sum()
