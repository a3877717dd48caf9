"""The dropout functions of torch, with its names, arguments, errors and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_scalar

from .. import presets
from .._errors import probability
from ..algebra.drop import Drop
from ..algebra.per import Block
from ..algebra.plan import plan
from ..engines.torch import dispatch, exported
from .core import Mode, drop, sample, sample_compiled
from .inputs import check_tensor, is_dense


def mode_of(training: bool) -> Mode:
    """The mode of a torch function: "sample" in training, "mean" in evaluation."""
    return "sample" if training else "mean"


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of single elements, as ``torch.nn.functional.dropout``.

    x m / (1 - p) with one Bernoulli draw for each element while training; ``input`` in evaluation.
    Unlike in torch, a NaN ``p`` is an error. For a draw under a key, call :func:`drop`.

    Args:
        input: A floating-point or complex tensor of any shape.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False returns ``input``.
        inplace: Whether to write the result into ``input``.

    Returns:
        A tensor of the shape and dtype of ``input``.

    Raises:
        InputError: Where ``p`` is not in [0, 1], or the dtype is not floating point or complex.

    Example:
        >>> import torch
        >>> dropout(torch.ones(2, 3), 1.0)
        tensor([[0., 0., 0.],
                [0., 0., 0.]])

    Reference:
        Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    if type(p) is not float:  # the cache below takes True for 1, and compares tensors by identity
        p = probability(p)
    if not isinstance(input, Tensor):
        check_tensor("dropout", input)
    if torch.compiler.is_dynamo_compiling():
        return _compiled("dropout", input, p, training, inplace)
    if not training or not input.numel():
        return drop(input, presets.dropout(p), mode="off")  # p is still checked
    if exported.recorder() or not is_dense(input):
        return drop(input, presets.dropout(p), inplace=inplace)
    return sample(input, prepared_dropout(p, tuple(input.shape)), None, None, inplace)


# Within a graph no spec is made: the rate comes as numbers, next to these specs of any rate.
_SPECS = {
    "dropout": presets.dropout(0.5),
    "spatial_dropout": presets.spatial_dropout(0.5),
    "alpha_dropout": presets.alpha_dropout(0.5),
    "feature_alpha_dropout": presets.feature_alpha_dropout(0.5),
}


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _numbers(name: str, p: float) -> list[int]:
    numbers: list[int] = dispatch.constant_numbers(_SPECS[name].at(p))
    return numbers


def _compiled(name: str, x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    p = guard_scalar(p)  # a graph for each rate, as for torch's functions
    numbers = _numbers(name, p)  # p is still checked
    if not training or not x.numel() or p == 0:
        return x
    return sample_compiled(x, _SPECS[name], numbers, None, None, inplace)


@lru_cache(maxsize=4096)
def prepared_dropout(p: float, shape: tuple[int, ...]) -> dispatch.PreparedPlan:
    """The prepared plan of dropout of single elements."""
    return dispatch.prepare(plan(presets.dropout(p), shape))


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Drops whole channels of [n, c, l], as ``torch.nn.functional.dropout1d``.

    Args:
        input: [n, c, l], or unbatched [c, l].
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False returns ``input``.
        inplace: Whether to write the result into ``input``.

    Returns:
        A tensor of the shape and dtype of ``input``.

    Raises:
        InputError: Where ``p`` is not in [0, 1].
        RuntimeError: For inputs of another rank, as in torch.

    Example:
        >>> import torch
        >>> dropout1d(torch.ones(1, 2, 3), 1.0)
        tensor([[[0., 0., 0.],
                 [0., 0., 0.]]])

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """
    return _channels(1, input, p, training, inplace)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Drops whole feature maps of [n, c, h, w], as ``torch.nn.functional.dropout2d``.

    Args:
        input: [n, c, h, w]. As in torch, an input [n, c, l] is accepted with a warning; for one
            image [c, h, w] write ``x.unsqueeze(0)``.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False returns ``input``.
        inplace: Whether to write the result into ``input``.

    Returns:
        A tensor of the shape and dtype of ``input``.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> import torch
        >>> dropout2d(torch.ones(1, 1, 2, 2), 1.0)
        tensor([[[[0., 0.],
                  [0., 0.]]]])

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """
    return _channels(2, input, p, training, inplace)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Drops whole feature maps of [n, c, d, h, w], as ``torch.nn.functional.dropout3d``.

    Args:
        input: [n, c, d, h, w], or unbatched [c, d, h, w].
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False returns ``input``.
        inplace: Whether to write the result into ``input``.

    Returns:
        A tensor of the shape and dtype of ``input``.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> import torch
        >>> dropout3d(torch.ones(1, 1, 1, 1, 3), 1.0)
        tensor([[[[[0., 0., 0.]]]]])

    Reference:
        Tompson et al. 2015; :func:`thinned.presets.spatial_dropout`.
    """
    return _channels(3, input, p, training, inplace)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Alpha dropout for SELU networks, as ``torch.nn.functional.alpha_dropout``.

    Args:
        input: A floating-point tensor of any shape.
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False by default, as in torch.
        inplace: Whether to write the result into ``input``.

    Returns:
        A tensor of the shape and dtype of ``input``.

    Raises:
        InputError: Where ``p`` is not in [0, 1].

    Example:
        >>> import torch
        >>> alpha_dropout(torch.ones(3), 0.5)
        tensor([1., 1., 1.])

    Reference:
        Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks";
        :func:`thinned.presets.alpha_dropout`.
    """
    check_tensor("alpha_dropout", input)
    if torch.compiler.is_dynamo_compiling():
        return _compiled("alpha_dropout", input, p, training, inplace)
    return drop(input, presets.alpha_dropout(p), mode=mode_of(training), inplace=inplace)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Alpha dropout of whole channels, as ``torch.nn.functional.feature_alpha_dropout``.

    Args:
        input: A floating-point tensor [n, c, ...].
        p: The rate of dropping, in [0, 1].
        training: Whether to draw; False by default, as in torch.
        inplace: Whether to write the result into ``input``.

    Returns:
        A tensor of the shape and dtype of ``input``.

    Raises:
        InputError: Where ``p`` is not in [0, 1].
        RuntimeError: For inputs without an axis of channels, as in torch.

    Example:
        >>> import torch
        >>> feature_alpha_dropout(torch.ones(1, 3), 0.5)
        tensor([[1., 1., 1.]])

    Reference:
        Klambauer, Unterthiner, Mayr, Hochreiter 2017, "Self-normalizing neural networks";
        :func:`thinned.presets.feature_alpha_dropout`.
    """
    check_tensor("feature_alpha_dropout", input)
    if training:
        check_channels("feature_alpha_dropout", input)
    if torch.compiler.is_dynamo_compiling():
        return _compiled("feature_alpha_dropout", input, p, training, inplace)
    return drop(input, presets.feature_alpha_dropout(p), mode=mode_of(training), inplace=inplace)


_SHAPES = {1: "[n, c, l] or [c, l]", 2: "[n, c, h, w]", 3: "[n, c, d, h, w] or [c, d, h, w]"}


def spec_for_rank(spec: Drop, x: Tensor, dims: int, name: Callable[[], str]) -> Drop:
    """``spec`` of layout ``b c *``, adapted to ``x`` with ``dims`` map axes by the rules of torch.

    Unbatched [c, l] and [c, d, h, w] are read as such; [c, h, w] looks the same as [n, c, l].
    """
    if x.dim() == dims + 2:
        return spec
    if spec.of != "b c *" or (spec.per not in ("b c", "b c *") and not isinstance(spec.per, Block)):
        return spec  # masks of another layout, where the rank does not matter
    per = (
        replace(spec.per, per="c *") if isinstance(spec.per, Block) else spec.per.replace("b ", "")
    )
    unbatched = replace(spec, per=per, of="c *")
    if x.dim() == dims + 1 and dims != 2:
        return unbatched
    called, rank = name(), x.dim()
    expected = f"it takes {_SHAPES[dims]}, but got {list(x.shape)}"
    if rank < (1 if dims == 3 else 2):
        check_channels(called, x)
    if dims == 1 or isinstance(spec.per, Block):
        ranks = "4D" if dims == 2 else f"{dims + 1}D or {dims + 2}D"
        raise RuntimeError(
            f"{called}: Expected {ranks} input, but received a {rank}D input; {expected}; for one "
            "example write x.unsqueeze(0)"
        )
    # the texts begin as torch's, and it is read as torch reads it
    reading = f"Received a {rank}-D input to {called}; "
    if dims == 3:
        reading += "its first axis is that of the channels"
    elif rank == 3:
        reading = (
            f"Received a 3D input to {called} and assuming that channel-wise 1D dropout behavior "
            "is desired - input is interpreted as shape (N, C, L)"
        )
    else:
        reading += "each pair of the first two axes is a channel"
    warnings.warn(
        f"{called}: {reading}; {expected}. Add a batch axis, or use the function for this rank.",
        stacklevel=3,
    )
    return unbatched if dims == 3 else spec


def check_channels(name: str, x: Tensor) -> None:
    """Raise, as torch does, where ``x`` has no axis of channels."""
    if x.dim() < 2:
        raise RuntimeError(
            f"{name}: Feature dropout requires at least 2 dimensions in the input, but got "
            f"{list(x.shape)}; write x.unsqueeze(0) for one example of several channels"
        )


def _channels(dims: int, x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    check_tensor(f"dropout{dims}d", x)
    if torch.compiler.is_dynamo_compiling() and x.dim() == dims + 2:
        return _compiled("spatial_dropout", x, p, training, inplace)
    spec = spec_for_rank(presets.spatial_dropout(p), x, dims, lambda: f"dropout{dims}d")
    return drop(x, spec, mode=mode_of(training), inplace=inplace)
