"""What every point has to keep, on every implementation: run it on your own points too.

    from thinned.testing import Case, CHECKS
    for check in CHECKS:
        check(Case(my_drop))

A check raises AssertionError with what it saw. Draws are keyed, so a result never changes from run
to run.
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
    """A point on a shape, under an implementation and a dtype."""

    drop: Drop
    shape: tuple[int, ...] = (12, 6, 10, 8)
    implementation: Implementation = "torch"
    dtype: torch.dtype = torch.float32

    def sample(self, x: Tensor, key: Key, drop: Drop | None = None) -> Tensor:
        """What training makes of ``x``."""
        drop = drop or self.drop
        if self.implementation == "torch":
            return functional.drop(x, drop, key=key)
        return torch.from_numpy(numpy_engine.sample(x.numpy(), plan(drop, tuple(x.shape)), key))

    def input(self) -> Tensor:
        """Values in [1, 2), so that what is dropped can be told from what is small."""
        return (
            (1.0 + torch.arange(math.prod(self.shape)) % 97 / 97).reshape(self.shape).to(self.dtype)
        )

    def noise(self, key: Key) -> Tensor:
        """The factor on each element, read from an input of ones."""
        return self.sample(torch.ones(self.shape, dtype=self.dtype), key)

    def fell(self, key: Key) -> Tensor:
        """Which elements fell: those that do not move when the input does."""
        one = torch.ones(self.shape, dtype=self.dtype)
        return self.sample(one, key) == self.sample(2 * one, key)


def check_zero_rate(case: Case) -> None:
    """At rate 0 nothing happens, and the result is the input itself."""
    drop, x = case.drop.at(0.0), case.input()
    y = case.sample(x, Key(1), drop)
    assert torch.equal(x, y)
    if case.implementation == "torch":
        assert y is x
        assert functional.drop(x, drop, mode="mean") is x


def check_full_rate(case: Case) -> None:
    """At p = 1 everything is dropped, gradients are zero and nothing is NaN, whatever the input
    holds.
    """
    if not isinstance(case.drop.law, Bernoulli):
        if not isinstance(case.drop.law, Uniform):
            try:
                case.drop.at(1.0)
            except InputError:
                return
            raise AssertionError("a law of infinite variance at p = 1 has to be refused")
        return
    drop, x = case.drop.at(1.0), case.input()
    x.view(-1)[:3] = torch.tensor([math.inf, -math.inf, math.nan])
    expected = torch.full_like(x, plan(drop, case.shape).dropped)
    assert torch.equal(case.sample(x, Key(1), drop), expected)
    if case.implementation == "torch":
        x.requires_grad_()
        functional.drop(x, drop, key=Key(1)).sum().backward()
        assert x.grad is not None
        assert not x.grad.any()


def check_evaluation(case: Case) -> None:
    """Evaluation is the identity, or the mean under classic scaling."""
    x, planned = case.input(), plan(case.drop, case.shape)
    if case.implementation == "numpy":
        y = torch.from_numpy(numpy_engine.mean(x.numpy(), planned))
    else:
        y = functional.drop(x, case.drop, mode="mean")
        assert functional.drop(x, case.drop, mode="off") is x
    torch.testing.assert_close(y, x * planned.mean_gain + planned.mean_shift)


def check_moments(case: Case, draws: int = 400) -> None:
    """Mean and variance over keys are the closed form; for a Block, the fraction that falls is."""
    planned = plan(case.drop, case.shape)
    if isinstance(case.drop.per, Block):
        expected = block_fraction(planned.threshold / 2**32, planned.extent, case.shape)
        assert_mean(
            [case.fell(Key(seed)).double().mean().item() for seed in range(draws)], expected
        )
        return
    closed = moments(case.drop)
    x = 1.5
    # One cell of each draw: cells may be shared, draws are independent.
    ys = [
        case.sample(torch.full(case.shape, x, dtype=torch.float32), Key(s)).view(-1)[0].item()
        for s in range(draws)
    ]
    assert_mean(ys, closed.mean(x))
    assert_mean([(y - closed.mean(x)) ** 2 for y in ys], closed.var(x))


def check_rate(case: Case) -> None:
    """The fraction of cells that fall is the threshold's."""
    if not isinstance(case.drop.law, Bernoulli) or isinstance(case.drop.per, Block):
        return
    planned = plan(case.drop, case.shape)
    first = tuple(slice(None) if n > 1 else slice(1) for n in planned.cells_shape)
    fell = [case.fell(Key(seed))[first] for seed in range(20)]
    assert_fraction(
        sum(int(f.sum()) for f in fell), sum(f.numel() for f in fell), planned.threshold / 2**32
    )


def check_sharing(case: Case) -> None:
    """Along a shared axis the noise is one; along an axis with coins of its own it is not."""
    noise = case.noise(Key(3)).double()
    planned = plan(case.drop, case.shape)
    for axis, n in enumerate(case.shape):
        if n == 1:
            continue
        same = bool((noise == noise.narrow(axis, 0, 1)).all())
        shared = planned.cells_shape[axis] == 1 and planned.extent[axis] == 1
        assert same == shared, (
            f"axis {axis} {'differs' if shared else 'does not differ'} within one draw"
        )


def check_key(case: Case) -> None:
    """The same key gives the same draw; another seed, stream, call, step or example gives another."""
    base = Key(seed=11, stream=22, call=1, step=5)
    drawn = case.noise(base)
    assert torch.equal(drawn, case.noise(base))
    others = [
        replace(base, seed=12),
        replace(base, stream=23),
        replace(base, call=2),
        replace(base, step=6),
    ]
    axis = plan(case.drop, case.shape).sample_axis
    if axis is not None:
        others.append(replace(base, samples=torch.arange(case.shape[axis]) + 1000))
    for other in others:
        assert not torch.equal(drawn, case.noise(other)), f"{other} gives the draw of {base}"


def check_batch(case: Case) -> None:
    """An example's coins are its own: permuting or splitting the batch moves them with it."""
    axis = plan(case.drop, case.shape).sample_axis
    if axis is None:
        return
    n = case.shape[axis]
    # A Realised scale looks at the whole batch; which elements fall does not.
    see: Callable[[Case, Key], Tensor] = (
        Case.fell if isinstance(case.drop.scale, KeptFraction) else Case.noise
    )
    ids = torch.arange(n) * 7 + 3
    whole = see(case, Key(5, samples=ids))
    order = torch.arange(n - 1, -1, -1)
    assert torch.equal(see(case, Key(5, samples=ids[order])), whole.index_select(axis, order))
    for size in (1, 3, 8):
        for start in range(0, n, size):
            some = ids[start : start + size]
            small = replace(case, shape=(*case.shape[:axis], len(some), *case.shape[axis + 1 :]))
            part = see(small, Key(5, samples=some))
            assert torch.equal(part, whole.narrow(axis, start, len(some))), (
                f"micro-batches of {size} differ from the whole"
            )


def check_gradient(case: Case) -> None:
    """At a fixed key the gradient is the map's slope, and second derivatives are right (in
    float64).
    """
    if case.implementation != "torch" or case.dtype != torch.float64:
        return
    shape = tuple(min(n, 3 if i < 2 else 8) for i, n in enumerate(case.shape))
    x = torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).reshape(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: functional.drop(t, case.drop, key=Key(9)), (x,))
    assert torch.autograd.gradgradcheck(
        lambda t: functional.drop(t, case.drop, key=Key(9)), (x,), fast_mode=True
    )


def check_plain_data(case: Case) -> None:
    """The point survives JSON, pickle and copying, and is hashable."""
    drop = case.drop
    for twin in (
        Drop.from_json(json.loads(json.dumps(drop.to_json()))),
        pickle.loads(pickle.dumps(drop)),  # noqa: S301
        copy.deepcopy(drop),
    ):
        assert twin == drop
        assert hash(twin) == hash(drop)
        assert twin.name == drop.name


def check_layouts(case: Case) -> None:
    """Empty, strided and channels-last inputs give what contiguous ones give, in their own format."""
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
    """This implementation draws what the NumPy engine draws: Bernoulli to the bit, others to 1e-5."""
    x, planned = case.input().float(), plan(case.drop, case.shape)
    ids = (
        None
        if planned.sample_axis is None
        else (1 << 40) - torch.arange(case.shape[planned.sample_axis]) * 3
    )
    key = Key(2**64 - 17, stream=2**63 + 4, call=3, step=2**32 - 1, samples=ids)
    expected = torch.from_numpy(numpy_engine.sample(x.numpy(), planned, key))
    y = case.sample(x, key)
    if isinstance(case.drop.law, Bernoulli):
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
