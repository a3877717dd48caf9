"""torch's own functions, with its names, arguments and errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from .. import presets
from ..algebra.drop import Drop
from ..algebra.per import Block
from ..algebra.plan import plan
from ..engines.torch import dispatch
from .core import Mode, drop, sample


def mode_of(training: bool) -> Mode:
    return "sample" if training else "mean"


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """:func:`thinned.presets.dropout` on every element, as ``torch.nn.functional.dropout``.

    Unlike in torch, a NaN ``p`` is an error.
    """
    if isinstance(p, Tensor):  # the cache below knows a tensor by its identity alone
        p = float(p)
    if not training or not input.numel():
        return drop(input, presets.dropout(p), mode="off")  # evaluation is the identity
    return sample(input, elementwise(p, tuple(input.shape)), None, None, inplace)


@lru_cache(maxsize=4096)
def elementwise(p: float, shape: tuple[int, ...]) -> dispatch.PreparedPlan:
    return dispatch.prepare(plan(presets.dropout(p), shape))


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """:func:`thinned.presets.spatial` on [n, c, l] or unbatched [c, l], as
    ``torch.nn.functional.dropout1d``.

    Raises RuntimeError for other ranks.
    """
    return _channels(1, input, p, training, inplace)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """:func:`thinned.presets.spatial` on [n, c, h, w], as ``torch.nn.functional.dropout2d``.

    As in torch a 3-d input is read as [n, c, l], with a warning; for one image [c, h, w] write
    ``x.unsqueeze(0)``.
    """
    return _channels(2, input, p, training, inplace)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """:func:`thinned.presets.spatial` on [n, c, d, h, w] or unbatched [c, d, h, w], as
    ``torch.nn.functional.dropout3d``.
    """
    return _channels(3, input, p, training, inplace)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`thinned.presets.alpha`, as ``torch.nn.functional.alpha_dropout``: ``training`` is
    False by default, as there.
    """
    return drop(input, presets.alpha_dropout(p), mode=mode_of(training), inplace=inplace)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """:func:`thinned.presets.feature_alpha`, as ``torch.nn.functional.feature_alpha_dropout``."""
    return drop(input, presets.feature_alpha_dropout(p), mode=mode_of(training), inplace=inplace)


_SHAPES = {1: "[n, c, l] or [c, l]", 2: "[n, c, h, w]", 3: "[n, c, d, h, w] or [c, d, h, w]"}


def laid_out(spec: Drop, x: Tensor, dims: int, name: Callable[[], str]) -> Drop:
    """``spec`` of layout ``b c *`` made ready for ``x``, a map of ``dims`` axes: torch's rules for
    its rank.

    Unbatched [c, l] and [c, d, h, w] are read as such; [c, h, w] cannot be told from [n, c, l].
    """
    if x.dim() == dims + 2:
        return spec
    if spec.of != "b c *" or (spec.per not in ("b c", "b c *") and not isinstance(spec.per, Block)):
        return spec  # coins of another layout: the rank does not matter
    if x.dim() == dims + 1 and dims != 2:
        per = (
            replace(spec.per, per="c *")
            if isinstance(spec.per, Block)
            else spec.per.replace("b ", "")
        )
        return replace(spec, per=per, of="c *")
    message = f"{name()}: expected an input of shape {_SHAPES[dims]}, but got {list(x.shape)}"
    if dims == 1 or x.dim() < 2 or isinstance(spec.per, Block):
        raise RuntimeError(f"{message}; for one example write x.unsqueeze(0)")
    reading = (
        "it is read as [n, c, l]"
        if x.dim() == 3
        else "each of the first two axes has its own coins"
    )
    warnings.warn(
        f"{message}; {reading}. Add a batch axis, or use the function for this rank.", stacklevel=3
    )
    return spec


def _channels(dims: int, x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    spec = laid_out(presets.spatial_dropout(p), x, dims, lambda: f"dropout{dims}d")
    return drop(x, spec, mode=mode_of(training), inplace=inplace)
