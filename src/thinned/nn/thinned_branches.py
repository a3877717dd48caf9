"""Residual branches that run on their kept examples only, under drop path and stochastic depth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..algebra.plan import plan
from ..engines.torch import dispatch, exported
from ..functional import core, thinning
from .spec_layer import SpecLayer


class Branch:
    """A residual branch: what its first module hands to the dropout layer at its end.

    ``layer`` drops the branch of each example by a keyed Bernoulli draw. The draw is made before
    the branch, so that the branch can be run on the kept examples alone; it is the draw that the
    layer would make.
    """

    def __init__(self, layer: SpecLayer) -> None:
        self.layer = layer
        self.kept: Tensor | None = None  # the examples that the branch runs on
        self.total = 0  # the number of all examples
        self.is_empty = False  # whether all are dropped; one is run then, and its result erased
        self.gain = 1.0
        self.outer: tuple[Tensor, int] | None = None  # of the branch that this one is part of
        self.dropped: tuple[int, int] | None = None  # of the last pass: dropped and all examples

    def draw(self, x: Tensor) -> Tensor | None:
        """Draw for a batch; return its kept examples, or None where the branch runs on all."""
        layer = self.layer
        self.kept = self.dropped = None
        if layer.mode() != "sample" or not x.numel() or not _sizes_may_vary(x):
            return None
        planned = plan(layer.spec, tuple(x.shape))
        if planned.is_identity:
            return None
        kept = core.mask(layer.spec, tuple(x.shape), layer.call_key(), x.device).flatten()
        self.total, self.gain = len(x), 0.0 if planned.drops_everything else planned.gain
        positions = kept.nonzero().squeeze(1)
        self.is_empty = not len(positions)
        self.kept = positions if len(positions) else positions.new_zeros(1)
        self.dropped = self.total - len(positions), self.total
        if layer.model_key is not None:
            outer = self.outer = layer.model_key.kept_examples
            layer.model_key.kept_examples = (
                (self.kept, self.total) if outer is None else (outer[0][self.kept], outer[1])
            )
        return self.kept

    def finish(self, y: Tensor) -> Tensor:
        """Return the result for all examples: scaled where kept, and 0 where dropped."""
        kept, self.kept = self.kept, None
        assert kept is not None
        if self.layer.model_key is not None:
            self.layer.model_key.kept_examples = self.outer
        if len(y) != len(kept):
            raise InputError(
                f"this residual branch was given {len(kept)} kept examples of {self.total}, but "
                f"its result has {len(y)}; it does not treat examples separately, so undo "
                "thinned.thin(model)"
            )
        if self.is_empty:
            y = y.masked_fill(torch.ones((), dtype=torch.bool, device=y.device), 0.0)
        elif self.gain != 1.0:
            y = y * self.gain
        return thinning.put_rows(y, kept, self.total)


def _sizes_may_vary(x: Tensor) -> bool:
    """Return whether the number of kept examples may set the shapes of the pass.

    It may not in graphs, exports and transforms, where the branch runs on all examples.
    """
    return not (
        torch.compiler.is_compiling()
        or exported.recorder()
        or dispatch.under_transform()
        or type(x) is not Tensor
    )


class BranchStart:
    """The forward pass of the first module of a branch: it takes the kept examples of its input."""

    action = "runs on the kept examples only, as does the branch that it begins"

    def __init__(self, module: nn.Module, branch: Branch, inner: Any = None) -> None:
        self.module, self.branch = module, branch
        self.inner = inner  # the forward that the instance had, if it is not that of the class

    def __call__(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        kept = self.branch.draw(input)
        x = input if kept is None else thinning.take_rows(input, kept)
        if self.inner is not None:
            return self.inner(x, *args, **kwargs)
        return type(self.module).forward(self.module, x, *args, **kwargs)


class BranchEnd:
    """The forward pass of the dropout layer at the end of its branches."""

    action = "takes the results of kept examples only"

    def __init__(self, branch: Branch) -> None:
        self.branch = branch

    def __call__(self, input: Tensor) -> Tensor:
        if self.branch.kept is None:
            return type(self.branch.layer).forward(self.branch.layer, input)
        return self.branch.finish(input)
