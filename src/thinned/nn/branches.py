"""Dropout of residual branches and of whole layers of a stack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError, choice, probability
from ..algebra.schedule import SCHEDULES, Schedule
from ..functional import core
from .method import FunctionLayer
from .module import RatedModule


class ShakeShake(FunctionLayer):
    """Shake-Shake: blends two residual branches by a random share, and their gradients by another.

    Call it as ``layer(first, second)`` with two branches [b, ...] of one shape; output: that shape.
    While training a first + (1 - a) second, a ~ U(0, 1) for each example; in evaluation their mean.

    Args:
        backward: The shares of the gradients: "shake" draws b ~ U(0, 1) again and uses b and 1 - b,
            "even" uses 1/2, and "keep" uses a itself.

    Raises:
        InputError: Where ``backward`` is unknown.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.ShakeShake("even")
        ShakeShake(backward=even)

    Reference:
        Gastaldi 2017, "Shake-shake regularization", section 1;
        :func:`thinned.functional.shake_shake`.
    """

    def __init__(self, backward: functional.branches.Backward = "shake") -> None:
        choice(backward, "backward", ("shake", "even", "keep"))
        super().__init__(functional.shake_shake, None, backward=backward)


class ShakeDrop(FunctionLayer):
    """ShakeDrop: multiplies a residual branch by random numbers, with probability ``p``.

    Call it on the branch, before the addition: ``x + layer(branch)``, with ``branch`` [b, ...];
    output: the same shape. While training the branch F passes with probability 1 - p, by one draw
    for the batch. Otherwise it is a F, a ~ U(alpha) for each example, with gradients of b ~ U(beta)
    instead. In evaluation it is the mean (1 - p + p E[a]) F.

    Args:
        p: The probability, in [0, 1], or a schedule of it; 0.5 in the last block, and less before
            it (:func:`thinned.presets.linear_rates`).
        alpha: The range (low, high) of the factor in the forward pass.
        beta: The range (low, high) of the factor in the backward pass.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.ShakeDrop(0.5)
        ShakeDrop(p=0.5, alpha=(-1.0, 1.0), beta=(0.0, 1.0))

    Reference:
        Yamada, Iwamura, Akiba, Kise 2019, "ShakeDrop regularization for deep residual learning",
        equation 4; :func:`thinned.functional.shake_drop`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.5,
        alpha: tuple[float, float] = (-1.0, 1.0),
        beta: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(
            functional.shake_drop,
            p=p,
            alpha=functional.branches.check_range("alpha", alpha),
            beta=functional.branches.check_range("beta", beta),
        )


class Swapout(FunctionLayer):
    """Swapout: drops units of the skip connection and of the branch, independently.

    Call it as ``layer(x, branch)`` in place of ``x + branch``, with two tensors [b, ...] of one
    shape; output: that shape. While training m1 x + m2 F(x), nothing scaled; in evaluation the mean
    (1 - skip_p) x + (1 - p) F(x). The paper prefers 30 samples: :func:`thinned.sampling`.

    Args:
        p: The probability of dropping a unit of the branch, in [0, 1], or a schedule of it.
        skip_p: That of the skip connection, in [0, 1]; None uses ``p``.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> import thinned.nn as tnn
        >>> tnn.Swapout(0.3, skip_p=0.1)
        Swapout(p=0.3, skip_p=0.1)

    Reference:
        Singh, Hoiem, Forsyth 2016, "Swapout: learning an ensemble of deep architectures", equation
        4; :func:`thinned.functional.swapout`.
    """

    def __init__(self, p: float | Schedule = 0.5, skip_p: float | None = None) -> None:
        if skip_p is not None and not isinstance(skip_p, SCHEDULES):
            skip_p = probability(skip_p, "skip_p")
        off_settings = {"skip_p": 0.0} if skip_p else None
        super().__init__(functional.swapout, off_settings=off_settings, p=p, skip_p=skip_p)


class LayerDrop(RatedModule, nn.ModuleList):
    """LayerDrop: skips whole layers of a stack while training, so that some can be pruned later.

    :meth:`prune` removes layers. Call it as ``stack(x, *args, **kwargs)``: the layers run one after
    the other, each on the result of the last and on the other arguments. Input and output have the
    shape of the layers. Each layer is skipped with probability ``p``, by one Bernoulli draw for the
    batch. Nothing is scaled, in training or evaluation, so it is for residual layers. In eager code
    a skipped layer is not computed; in a compiled graph all layers are, and skipped ones have no
    effect. It is a ``torch.nn.ModuleList``, so checkpoints of one load. Under
    DistributedDataParallel set ``find_unused_parameters=True``, since the parameters of a skipped
    layer have no gradient.

    Args:
        layers: The layers, from a tensor to a tensor of the same shape.
        p: The probability of skipping a layer, in [0, 1], or a schedule of it: 0.1 to 0.2 for
            quality, up to 0.5 where layers will be pruned.

    Raises:
        InputError: Where ``p`` is out of range.

    Example:
        >>> from torch import nn
        >>> import thinned.nn as tnn
        >>> stack = tnn.LayerDrop([nn.Linear(4, 4) for _ in range(6)], 0.2)
        >>> len(stack), len(stack.prune(keep=2))
        (6, 3)

    Reference:
        Fan, Grave, Joulin 2020, "Reducing transformer depth on demand with structured dropout",
        sections 3.2 and 3.3.
    """

    def __init__(self, layers: Iterable[nn.Module], p: float | Schedule = 0.2) -> None:
        super().__init__(layers)
        self.set_initial_rate(p)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        compiling = torch.compiler.is_compiling()
        if self.mode() != "sample" or not len(self) or (self._rate == 0 and not compiling):
            for layer in self:
                x = layer(x, *args, **kwargs)
            return x
        like = torch.empty(0) if x.is_meta else x  # which layers run is read
        kept = core.bernoulli_mask(
            (len(self),), self.current_rate(), self.call_key(), like, per="l", of="l"
        )
        if compiling:
            for i, layer in enumerate(self):
                x = torch.where(kept[i], layer(x, *args, **kwargs), x)
            return x
        for keep, layer in zip(kept.tolist(), self, strict=True):
            x = layer(x, *args, **kwargs) if keep else x
        return x

    def prune(self, keep: int | Sequence[int] = 2) -> LayerDrop:
        """Build a smaller stack from some of these layers, which both stacks share.

        Args:
            keep: Keep every ``keep``-th layer from the first, or the layers at these positions. The
                paper finds "every other" (2) as good as any rule.

        Returns:
            The smaller stack, with the same rate and training mode.

        Raises:
            InputError: Where ``keep`` is below 1, or names a position that does not exist.
        """
        if isinstance(keep, int):
            if keep < 1:
                raise InputError(
                    f"keep has to be at least 1, but got {keep}; 2 keeps every other layer"
                )
            positions: Sequence[int] = range(0, len(self), keep)
        else:
            positions = keep
        wrong = [i for i in positions if not 0 <= i < len(self)]
        if wrong:
            raise InputError(
                f"keep names layer {wrong[0]}, but there are layers 0 to {len(self) - 1}"
            )
        return self._part([self[i] for i in positions])

    def __getitem__(self, index: Any) -> Any:
        """Return a layer, or for a slice a stack with the same rate."""
        found = super().__getitem__(index)
        return self._part(found) if isinstance(index, slice) else found

    def _part(self, layers: Iterable[nn.Module]) -> LayerDrop:
        part = LayerDrop(layers, self.schedule or self._rate)
        part.p = self._rate
        return part.train(self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
