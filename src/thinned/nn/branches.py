"""Hosts on residual branches and stacks of layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._errors import InputError
from ..algebra.schedule import Schedule
from ..functional import core
from .method import FunctionLayer
from .module import RatedModule


class ShakeShake(FunctionLayer):
    """:func:`thinned.functional.shake_shake` of two branches: ``layer(first, second)``."""

    def __init__(self, backward: functional.branches.Backward = "shake") -> None:
        super().__init__(functional.shake_shake, None, backward=backward)


class ShakeDrop(FunctionLayer):
    """:func:`thinned.functional.shake_drop` of a branch: ``x + layer(branch)``."""

    def __init__(
        self,
        p: float | Schedule = 0.5,
        alpha: tuple[float, float] = (-1.0, 1.0),
        beta: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(functional.shake_drop, p=p, alpha=alpha, beta=beta)


class Swapout(FunctionLayer):
    """:func:`thinned.functional.swapout`: ``layer(x, branch)``, in the place of ``x + branch``."""

    def __init__(self, p: float | Schedule = 0.5, skip_p: float | None = None) -> None:
        off = {"skip_p": 0.0} if skip_p else None
        super().__init__(functional.swapout, off=off, p=p, skip_p=skip_p)


class LayerDrop(RatedModule, nn.ModuleList):
    """LayerDrop: whole layers of a stack are skipped while training, and some may be left out for
    good.

    ``layers`` run one after the other, each on the result of the last and on the further arguments
    of the call. While training each is skipped with probability ``p``, one coin for the batch;
    nothing is scaled, in training or evaluation, so it is for residual layers. In eager code a
    skipped layer is not computed; in a compiled graph all are, and skipped ones have no effect.
    ``p`` in [0, 1] or a schedule: 0.1 to 0.2 for quality, up to 0.5 where layers will be pruned.
    ``prune`` keeps a part of the layers for smaller networks. It is a ``ModuleList``, so
    checkpoints of one load. Under DistributedDataParallel a skipped layer's parameters have no
    gradient: ``find_unused_parameters=True``.

    Fan, Grave, Joulin 2020, "Reducing transformer depth on demand with structured dropout",
    sections 3.2 and 3.3.
    """

    def __init__(self, layers: Iterable[nn.Module], p: float | Schedule = 0.2) -> None:
        super().__init__(layers)
        self.start(p)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        compiling = torch.compiler.is_compiling()
        if self.mode() != "sample" or not len(self) or (self._rate == 0 and not compiling):
            for layer in self:
                x = layer(x, *args, **kwargs)
            return x
        kept = core.bernoulli_mask((len(self),), self.now(), self.call_key(), x, per="l", of="l")
        if compiling:
            for i, layer in enumerate(self):
                x = torch.where(kept[i], layer(x, *args, **kwargs), x)
            return x
        for stays, layer in zip(kept.tolist(), self, strict=True):
            x = layer(x, *args, **kwargs) if stays else x
        return x

    def prune(self, keep: int | Sequence[int] = 2) -> LayerDrop:
        """A stack of a part of these layers, which are shared: every ``keep``-th from the first, or
        those of the given places.

        Fan et al. find "every other" (2) as good as any rule. Raises :class:`thinned.InputError`
        for a place that is not here.
        """
        if isinstance(keep, int):
            if keep < 1:
                raise InputError(
                    f"keep has to be at least 1, but got {keep}; 2 keeps every other layer"
                )
            places: Sequence[int] = range(0, len(self), keep)
        else:
            places = keep
        wrong = [i for i in places if not 0 <= i < len(self)]
        if wrong:
            raise InputError(
                f"keep names layer {wrong[0]}, but there are layers 0 to {len(self) - 1}"
            )
        return self._part([self[i] for i in places])

    def __getitem__(self, index: Any) -> Any:
        """A layer; of a slice a stack with the same rate."""
        found = super().__getitem__(index)
        return self._part(found) if isinstance(index, slice) else found

    def _part(self, layers: Iterable[nn.Module]) -> LayerDrop:
        part = LayerDrop(layers, self.schedule or self._rate)
        part.p = self._rate
        return part.train(self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
