"""The contract of every spec on every implementation: run it on your own specs too.

    from thinned.testing import Case, CHECKS
    for check in CHECKS:
        check(Case(my_spec))

A check raises AssertionError with the values that it found. Draws are keyed, so a result never
changes from run to run.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .. import functional
from .._errors import InputError
from ..algebra import Bernoulli, Block, Drop, KeptFraction, Key, Uniform, moments, plan
from ..algebra.per import block_fraction
from ..engines import numpy as numpy_engine
from .statistics import assert_fraction, assert_mean

Implementation = Literal["torch", "numpy"]


@dataclass(frozen=True)
class Case:
    """A spec on a shape, under an implementation and a dtype: what the ``CHECKS`` take.

    Args:
        spec: The spec to check, at a rate between 0 and 1.
        shape: The shape of the inputs. It has to fit the layout of the spec; several hundred mask
            elements make the statistics meaningful.
        implementation: "torch" or "numpy".
        dtype: The dtype of the inputs. Gradients are checked in float64.

    Example:
        >>> from thinned import presets
        >>> from thinned.testing import CHECKS
        >>> for check in CHECKS:
        ...     check(Case(presets.dropout(0.3)))
    """

    spec: Drop
    shape: tuple[int, ...] = (12, 6, 10, 8)
    implementation: Implementation = "torch"
    dtype: torch.dtype = torch.float32

    def sample(self, x: Tensor, key: Key, spec: Drop | None = None) -> Tensor:
        """Return the training output of ``x``; ``spec`` replaces the spec of the case."""
        spec = spec or self.spec
        if self.implementation == "torch":
            return functional.drop(x, spec, key=key)
        return torch.from_numpy(numpy_engine.sample(x.numpy(), plan(spec, tuple(x.shape)), key))

    def input(self) -> Tensor:
        """Return values in [1, 2), so that dropped elements differ from small ones."""
        return (
            (1.0 + torch.arange(math.prod(self.shape)) % 97 / 97).reshape(self.shape).to(self.dtype)
        )

    def noise(self, key: Key) -> Tensor:
        """Return the factor of each element, measured on an input of ones."""
        return self.sample(torch.ones(self.shape, dtype=self.dtype), key)

    def is_dropped(self, key: Key) -> Tensor:
        """Return which elements are dropped: those that do not change with the input."""
        ones = torch.ones(self.shape, dtype=self.dtype)
        return self.sample(ones, key) == self.sample(2 * ones, key)


def check_zero_rate(case: Case) -> None:
    """At rate 0 the result is the input itself."""
    spec, x = case.spec.at(0.0), case.input()
    y = case.sample(x, Key(1), spec)
    assert torch.equal(x, y)
    if case.implementation == "torch":
        assert y is x
        assert functional.drop(x, spec, mode="mean") is x


def check_full_rate(case: Case) -> None:
    """At p = 1 everything is dropped, and gradients are zero.

    No NaN comes out, whatever the input holds.
    """
    if not isinstance(case.spec.law, Bernoulli):
        if not isinstance(case.spec.law, Uniform):
            try:
                case.spec.at(1.0)
            except InputError:
                return
            raise AssertionError("noise of infinite variance at p = 1 has to be refused")
        return
    spec, x = case.spec.at(1.0), case.input()
    x.view(-1)[:3] = torch.tensor([math.inf, -math.inf, math.nan])
    expected = torch.full_like(x, plan(spec, case.shape).dropped)
    assert torch.equal(case.sample(x, Key(1), spec), expected)
    if case.implementation == "torch":
        x.requires_grad_()
        functional.drop(x, spec, key=Key(1)).sum().backward()
        assert x.grad is not None
        assert not x.grad.any()


def check_evaluation(case: Case) -> None:
    """Evaluation is the identity, or the mean under classic scaling."""
    x, planned = case.input(), plan(case.spec, case.shape)
    if case.implementation == "numpy":
        y = torch.from_numpy(numpy_engine.mean(x.numpy(), planned))
    else:
        y = functional.drop(x, case.spec, mode="mean")
        assert functional.drop(x, case.spec, mode="off") is x
    torch.testing.assert_close(y, x * planned.mean_gain + planned.mean_shift)


def check_moments(case: Case, draws: int = 400) -> None:
    """Mean and variance over keys are the closed form; for a Block, the dropped fraction is."""
    planned = plan(case.spec, case.shape)
    if isinstance(case.spec.per, Block):
        expected = block_fraction(planned.threshold / 2**32, planned.extent, case.shape)
        assert_mean(
            [case.is_dropped(Key(seed)).double().mean().item() for seed in range(draws)], expected
        )
        return
    closed = moments(case.spec)
    x = 1.5
    # One element of each draw: elements may share one draw, while draws are independent.
    ys = [
        case.sample(torch.full(case.shape, x, dtype=torch.float32), Key(s)).view(-1)[0].item()
        for s in range(draws)
    ]
    assert_mean(ys, closed.mean(x))
    assert_mean([(y - closed.mean(x)) ** 2 for y in ys], closed.var(x))


def check_rate(case: Case) -> None:
    """The fraction of mask elements that are dropped is that of the threshold."""
    if not isinstance(case.spec.law, Bernoulli) or isinstance(case.spec.per, Block):
        return
    planned = plan(case.spec, case.shape)
    first = tuple(slice(None) if n > 1 else slice(1) for n in planned.mask_shape)
    masks = [case.is_dropped(Key(seed))[first] for seed in range(20)]
    assert_fraction(
        sum(int(m.sum()) for m in masks), sum(m.numel() for m in masks), planned.threshold / 2**32
    )


def check_sharing(case: Case) -> None:
    """Noise is constant along a shared axis, and differs along a separately drawn one."""
    noise = case.noise(Key(3)).double()
    planned = plan(case.spec, case.shape)
    for axis, n in enumerate(case.shape):
        if n == 1:
            continue
        same = bool((noise == noise.narrow(axis, 0, 1)).all())
        shared = planned.mask_shape[axis] == 1 and planned.extent[axis] == 1
        assert same == shared, (
            f"axis {axis} {'differs' if shared else 'does not differ'} within one draw"
        )


def check_key(case: Case) -> None:
    """The same key gives the same draw; another seed, stream, call, step or id gives another."""
    base = Key(seed=11, stream=22, call=1, step=5)
    drawn = case.noise(base)
    assert torch.equal(drawn, case.noise(base))
    others = [
        replace(base, seed=12),
        replace(base, stream=23),
        replace(base, call=2),
        replace(base, step=6),
    ]
    axis = plan(case.spec, case.shape).sample_axis
    if axis is not None:
        others.append(replace(base, samples=torch.arange(case.shape[axis]) + 1000))
    for other in others:
        assert not torch.equal(drawn, case.noise(other)), f"{other} gives the draw of {base}"


def check_batch(case: Case) -> None:
    """The mask of an example moves with it when the batch is permuted or split."""
    axis = plan(case.spec, case.shape).sample_axis
    if axis is None:
        return
    n = case.shape[axis]
    # The scale KeptFraction depends on the whole batch; the dropped elements do not.
    view: Callable[[Case, Key], Tensor] = (
        Case.is_dropped if isinstance(case.spec.scale, KeptFraction) else Case.noise
    )
    ids = torch.arange(n) * 7 + 3
    whole = view(case, Key(5, samples=ids))
    order = torch.arange(n - 1, -1, -1)
    assert torch.equal(view(case, Key(5, samples=ids[order])), whole.index_select(axis, order))
    for size in (1, 3, 8):
        for start in range(0, n, size):
            part_ids = ids[start : start + size]
            small = replace(
                case, shape=(*case.shape[:axis], len(part_ids), *case.shape[axis + 1 :])
            )
            part = view(small, Key(5, samples=part_ids))
            assert torch.equal(part, whole.narrow(axis, start, len(part_ids))), (
                f"micro-batches of {size} differ from the whole"
            )


def check_gradient(case: Case) -> None:
    """At a fixed key, first and second derivatives are those of the map (in float64)."""
    if case.implementation != "torch" or case.dtype != torch.float64:
        return
    shape = tuple(min(n, 3 if i < 2 else 8) for i, n in enumerate(case.shape))
    x = torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).reshape(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: functional.drop(t, case.spec, key=Key(9)), (x,))
    assert torch.autograd.gradgradcheck(
        lambda t: functional.drop(t, case.spec, key=Key(9)), (x,), fast_mode=True
    )


def check_plain_data(case: Case) -> None:
    """The spec survives JSON, pickle and copying, and is hashable."""
    spec = case.spec
    for twin in (
        Drop.from_json(json.loads(json.dumps(spec.to_json()))),
        pickle.loads(pickle.dumps(spec)),  # noqa: S301
        copy.deepcopy(spec),
    ):
        assert twin == spec
        assert hash(twin) == hash(spec)
        assert twin.name == spec.name


def check_layouts(case: Case) -> None:
    """Empty, strided and channels-last inputs give the values of contiguous ones.

    The memory format of the result is that of the input.
    """
    if case.implementation != "torch":
        return
    x, key = case.input(), Key(4)
    expected = case.sample(x, key)
    turned = x.transpose(0, -1).contiguous().transpose(0, -1)
    y = case.sample(turned, key)
    assert torch.equal(y, expected)
    assert y.stride() == turned.stride()
    if x.dim() == 4:
        last = x.contiguous(memory_format=torch.channels_last)
        y = case.sample(last, key)
        assert torch.equal(y, expected)
        assert y.is_contiguous(memory_format=torch.channels_last)
    wide = x.narrow(-1, 0, 1).expand(case.shape)
    assert torch.equal(case.sample(wide, key), case.sample(wide.contiguous(), key))
    empty = x[:0]
    assert case.sample(empty, key).shape == empty.shape


def check_engines(case: Case) -> None:
    """The implementation draws what the NumPy engine draws.

    Bernoulli masks agree to the bit, continuous noise to 1e-5.
    """
    x, planned = case.input().float(), plan(case.spec, case.shape)
    ids = (
        None
        if planned.sample_axis is None
        else (1 << 40) - torch.arange(case.shape[planned.sample_axis]) * 3
    )
    key = Key(2**64 - 17, stream=2**63 + 4, call=3, step=2**32 - 1, samples=ids)
    expected = torch.from_numpy(numpy_engine.sample(x.numpy(), planned, key))
    y = case.sample(x, key)
    if isinstance(case.spec.law, Bernoulli):
        assert torch.equal(y == planned.dropped, expected == planned.dropped)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_zero_rate,
    check_full_rate,
    check_evaluation,
    check_moments,
    check_rate,
    check_sharing,
    check_key,
    check_batch,
    check_gradient,
    check_plain_data,
    check_layouts,
    check_engines,
)
