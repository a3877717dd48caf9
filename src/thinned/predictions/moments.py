"""Mean and covariance of the outputs of a dropout network, propagated in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import InputError, choice
from ..algebra.drop import Drop
from ..algebra.law import Bernoulli, Gaussian, Uniform
from ..algebra.per import Block
from ..algebra.scale import Classic, Inverted
from ..nn.spec_layer import SpecLayer

_FULL = 2**26  # numbers in the covariances of a batch, above which "auto" drops covariances
_TERMS = 12  # of the Hermite series of a covariance
_NODES = 96  # of the quadrature for activations without a closed form

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_SMOOTH = (nn.GELU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """The mean and the covariance of outputs, as :func:`propagate_moments` returns them.

    Args:
        mean: [b, ...], in the shape of the output.
        variance: The same shape.
        covariance: [b, d, d] over the d elements of the output of each row; None where only
            variances were propagated.

    Example:
        >>> Moments(mean=torch.zeros(2), variance=torch.ones(2)).std.tolist()
        [1.0, 1.0]
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """The standard deviations, in the shape of the output."""
        return self.variance.sqrt()


@torch.no_grad()
def propagate_moments(model: nn.Module, x: Tensor, *, covariance: str = "auto") -> Moments:
    """Return the mean and the covariance over all dropout masks of a network's outputs.

    One pass replaces many samples. Dropout, linear layers, convolutions, average pooling and batch
    normalization in evaluation are exact, given the moments of their inputs. Activations take their
    input as jointly normal: means and variances are exact for it (closed forms for ReLU, quadrature
    for the others), covariances are a Hermite series of twelve terms. A softmax at the end takes
    the mean-field value softmax(m / sqrt(1 + pi v / 8)), and no covariance.

    Args:
        model: A chain of ``nn.Sequential`` (also nested) of the layers above, with element-wise or
            channel-wise dropout of torch or of thinned.
        x: The inputs [b, ...].
        covariance: "full"; "diagonal" for variances alone, which takes the elements of each hidden
            layer as independent; "auto" is "full" where the covariances of the batch are at most
            2^26 numbers, and "diagonal" otherwise.

    Returns:
        The moments; for a softmax the mean alone is a probability, and ``variance`` is NaN.

    Raises:
        InputError: Where a layer carries no moments; the message names it.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1, bias=False))
        >>> with torch.no_grad():
        ...     _ = model[1].weight.fill_(1.0)
        >>> found = propagate_moments(model, torch.ones(1, 2))
        >>> found.mean.tolist(), found.variance.tolist()
        ([[2.0]], [[2.0]])

    Reference:
        Wang and Manning 2013, "Fast dropout training", for linear layers and ReLU; MacKay 1992 for
        the softmax.
    """
    choice(covariance, "covariance", ("auto", "full", "diagonal"))
    layers = list(_chain(model, ""))
    if covariance == "auto":
        covariance = "full" if _largest(layers, x) ** 2 * len(x) <= _FULL else "diagonal"
    full = covariance == "full"
    size = x[0].numel() if len(x) else 0
    spread = x.new_zeros(len(x), size, size) if full else torch.zeros_like(x)
    state = _State(x, spread, full)
    for position, (name, layer) in enumerate(layers):
        if isinstance(layer, nn.Softmax):
            if position != len(layers) - 1:
                raise InputError(f"{name} (Softmax) is followed by other layers, and carries none")
            scaled = state.mean / (1.0 + math.pi / 8.0 * state.variance()).sqrt()
            mean = layer(scaled)
            return Moments(mean=mean, variance=torch.full_like(mean, math.nan))
        state = _through(name, layer, state)
    return Moments(
        mean=state.mean, variance=state.variance(), covariance=state.spread if full else None
    )


@dataclass(frozen=True)
class _State:
    """The mean [b, ...], and the covariance [b, d, d] or the variance [b, ...]."""

    mean: Tensor
    spread: Tensor
    full: bool

    def variance(self) -> Tensor:
        if not self.full:
            return self.spread
        return self.spread.diagonal(dim1=-2, dim2=-1).reshape(self.mean.shape).clamp(min=0.0)


def _chain(model: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    if not isinstance(model, nn.Sequential):
        return [(prefix or "the model", model)]
    found = []
    for name, child in model.named_children():
        found += _chain(child, f"{prefix}.{name}".lstrip("."))
    return found


def _largest(layers: list[tuple[str, nn.Module]], x: Tensor) -> int:
    """The largest number of elements in one row of any layer."""
    largest, row = x[:1].numel(), x[:1]
    for name, layer in layers:
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            continue
        _check_known(name, layer)
        row = layer(row)
        largest = max(largest, row.numel())
    return largest


def _check_known(name: str, layer: nn.Module) -> None:
    known = (*_LINEAR, *_POOLS, *_NORMS, *_SMOOTH, nn.ReLU, nn.Flatten, nn.Identity, nn.Softmax)
    if not isinstance(layer, known):
        raise InputError(
            f"{name} ({type(layer).__name__}) carries no moments; draw samples instead, by "
            "thinned.sampling, or propagate through the layers up to it"
        )
    if isinstance(layer, _NORMS) and (layer.training or layer.running_mean is None):
        raise InputError(
            f"{name} ({type(layer).__name__}) uses the statistics of the batch; call model.eval()"
        )


def _through(name: str, layer: nn.Module, state: _State) -> _State:
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return _dropped(name, layer, state)
    _check_known(name, layer)
    if isinstance(layer, nn.Identity):
        return state
    if isinstance(layer, nn.Flatten):
        return _State(
            layer(state.mean), state.spread if state.full else layer(state.spread), state.full
        )
    if isinstance(layer, nn.ReLU):
        return _activated(state, _relu_coefficients)
    if isinstance(layer, _SMOOTH):
        return _activated(state, lambda m, s: _quadrature(layer, m, s))
    return _mapped(layer, state)


def _mapped(layer: nn.Module, state: _State) -> _State:
    """Through a layer that computes A x + c."""
    mean = layer(state.mean)
    if not state.full:
        return _State(mean, _squared(layer, state.spread), False)
    zero = layer(torch.zeros_like(state.mean[:1]))
    shape, b = state.mean.shape[1:], len(state.mean)

    def rows(matrix: Tensor) -> Tensor:
        """A applied to each row of matrices [b, d, d], which become [b, d, outputs]."""
        count = matrix.shape[1]
        mapped: Tensor = layer(matrix.reshape(b * count, *shape)) - zero
        return mapped.reshape(b, count, -1)

    half = rows(state.spread).transpose(1, 2)  # [b, outputs, d], as covariances are symmetric
    return _State(mean, rows(half), True)


def _squared(layer: nn.Module, variance: Tensor) -> Tensor:
    """The variance of A x + c for independent elements of x."""
    if isinstance(layer, nn.Linear):
        return F.linear(variance, layer.weight.square())
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[layer.weight.dim() - 2]
        if layer.padding_mode != "zeros":
            raise InputError(f"padding_mode={layer.padding_mode!r} carries no variances")
        result: Tensor = convolve(
            variance,
            layer.weight.square(),
            None,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        return result
    if isinstance(layer, _NORMS):
        gain: Tensor = layer(torch.ones_like(variance)) - layer(torch.zeros_like(variance))
        return variance * gain.square()
    pooled: Tensor = layer(
        variance
    )  # equal weights 1 / n: the variance of a mean is the mean over n
    count = variance[0, 0].numel() / pooled[0, 0].numel()
    if isinstance(layer, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)):
        size = layer.kernel_size
        dims = variance.dim() - 2
        count = math.prod(size) if isinstance(size, tuple) else size**dims
    return pooled / count


def _gain(name: str, layer: nn.Module) -> tuple[float, float, str]:
    """(mean, variance, "b *" or "b c *" with "b c") of the factor that a dropout layer draws."""
    if isinstance(layer, SpecLayer):
        spec: Drop = layer.spec
        per = spec.per
        known = not isinstance(per, Block) and per in (spec.of, "b c") and spec.of.startswith("b")
        scaled = isinstance(spec.scale, (Inverted, Classic))
        if known and scaled and isinstance(spec.law, (Bernoulli, Gaussian, Uniform)):
            p = spec.rate
            shared = "element" if per == spec.of else "channel"
            if isinstance(spec.law, Bernoulli):
                classic = isinstance(spec.scale, Classic)
                if p == 1.0:
                    return 0.0, 0.0, shared
                return (1 - p, p * (1 - p), shared) if classic else (1.0, p / (1 - p), shared)
            return 1.0, float(spec.law.var()), shared
    elif type(layer) in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d):
        p = float(layer.p)  # type: ignore[arg-type]
        shared = "element" if type(layer) is nn.Dropout else "channel"
        return (0.0, 0.0, shared) if p == 1.0 else (1.0, p / (1 - p), shared)
    raise InputError(
        f"{name} ({type(layer).__name__}) draws noise that carries no moments here; draw samples "
        "instead, by thinned.sampling"
    )


def _dropped(name: str, layer: nn.Module, state: _State) -> _State:
    gain, variance, shared = _gain(name, layer)
    second = state.spread + (
        state.mean.square()
        if not state.full
        else state.mean.flatten(1).unsqueeze(2) * state.mean.flatten(1).unsqueeze(1)
    )
    if not state.full:
        return _State(gain * state.mean, gain**2 * state.spread + variance * second, False)
    d = second.shape[-1]
    if shared == "element":
        same = torch.eye(d, dtype=second.dtype, device=second.device)
    else:
        channels = state.mean.shape[1]
        number = torch.arange(d, device=second.device) // (d // channels)
        same = (number[:, None] == number[None]).to(second.dtype)
    return _State(gain * state.mean, gain**2 * state.spread + variance * same * second, True)


_Coefficients = Callable[[Tensor, Tensor], tuple[list[Tensor], Tensor]]


def _activated(state: _State, coefficients: _Coefficients) -> _State:
    """Through an element-wise function of jointly normal inputs.

    ``coefficients`` returns a_0 to a_K with f(m + s z) = sum a_k He_k(z), and the variance of f.
    """
    std = state.variance().sqrt()
    series, variance = coefficients(state.mean, std)
    mean = series[0]
    if not state.full:
        return _State(mean, variance, False)
    flat = std.flatten(1)
    scale = flat.unsqueeze(2) * flat.unsqueeze(1)
    rho = torch.where(scale > 0, state.spread / scale.clamp(min=1e-300), 0.0).clamp(-1.0, 1.0)
    covariance, power, factorial = torch.zeros_like(rho), torch.ones_like(rho), 1.0
    for k, a in enumerate(series[1:], 1):
        power, factorial = power * rho, factorial * k
        row = a.flatten(1)
        covariance += factorial * row.unsqueeze(2) * row.unsqueeze(1) * power
    covariance.diagonal(dim1=-2, dim2=-1).copy_(variance.flatten(1))
    return _State(mean, covariance, True)


def _relu_coefficients(mean: Tensor, std: Tensor) -> tuple[list[Tensor], Tensor]:
    t = torch.where(std > 0, mean / std.clamp(min=1e-300), torch.inf * mean.sign())
    t = torch.nan_to_num(t, nan=0.0).clamp(-1e4, 1e4)
    below = torch.special.ndtr(t)
    density = torch.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
    first = mean * below + std * density
    square = (mean.square() + std.square()) * below + mean * std * density
    variance = torch.where(std > 0, square - first.square(), 0.0).clamp(min=0.0)
    first = torch.where(std > 0, first, mean.relu())
    series = [first, std * below]
    # the derivatives of the step: E f^(k) = (-1)^k He_(k-2)(t) density / s^(k-1)
    previous, hermite, factorial = torch.zeros_like(t), torch.ones_like(t), 1.0
    for k in range(2, _TERMS + 1):
        factorial *= k
        term = (-1) ** k * std * hermite * density / factorial
        series.append(torch.where(density > 0, term, 0.0))  # He_k(t) may have overflowed
        previous, hermite = hermite, t * hermite - (k - 2) * previous
    return series, variance


def _quadrature(
    function: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The coefficients of any smooth function, by Gauss-Hermite quadrature."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / math.sqrt(2 * math.pi)
    series = [torch.zeros_like(mean) for _ in range(_TERMS + 1)]
    square = torch.zeros_like(mean)
    for z, w in zip(nodes.tolist(), weights.tolist(), strict=True):
        value = function(mean + std * z)
        square += w * value.square()
        previous, hermite = 0.0, 1.0
        for k in range(_TERMS + 1):
            series[k] += w * hermite * value / math.factorial(k)
            previous, hermite = hermite, z * hermite - k * previous
    variance = (square - series[0].square()).clamp(min=0.0)
    return series, variance
