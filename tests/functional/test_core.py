"""Any Drop on any tensor, and the public draws: keys, generators, dtypes and sample ids."""

from __future__ import annotations

import math

import pytest
import torch

from thinned import InputError, presets
from thinned import functional as F
from thinned.algebra import Key


def test_generator_decides():
    x = torch.ones(100)
    draw = lambda seed: F.drop(x, presets.dropout(), generator=torch.Generator().manual_seed(seed))  # noqa: E731
    state = torch.get_rng_state()
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("impl", ["reference", None])
def test_infinity_times_zero_is_nan_as_in_torch(impl):
    """y = a x with a = 0 where dropped; only p = 1, where x has no effect, gives zeros
    whatever x holds.
    """
    x = torch.full((1000,), math.inf)
    y = F.drop(x, presets.dropout(0.5), key=Key(0), impl=impl)
    kept = F.mask(presets.dropout(0.5), (1000,), Key(0))
    assert y[kept].eq(math.inf).all()
    assert y[~kept].isnan().all()
    assert F.drop(x, presets.dropout(1.0), key=Key(0), impl=impl).eq(0).all()


def test_bad_mode_and_sample_ids():
    with pytest.raises(InputError, match="unknown mode 'train'; known: mean, off, sample"):
        F.drop(torch.ones(3), presets.dropout(), mode="train")
    with pytest.raises(
        InputError, match="samples has to name each of the 3 examples on axis 0, but got 2 ids"
    ):
        F.drop(torch.ones(3, 4), presets.dropout(), key=Key(0, samples=torch.arange(2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_the_mask_is_the_same(dtype):
    y = F.drop(torch.ones(50, 60, dtype=dtype), presets.dropout(0.4), key=Key(3))
    assert y.dtype == dtype
    assert torch.equal(y == 0, F.drop(torch.ones(50, 60), presets.dropout(0.4), key=Key(3)) == 0)


def test_vmap():
    """vmap over examples with a fixed key gives what a loop gives."""
    x = torch.randn(5, 8)
    drawn = torch.func.vmap(lambda row: F.drop(row, presets.dropout(0.5), key=Key(2)))(x)
    assert torch.equal(
        drawn, torch.stack([F.drop(row, presets.dropout(0.5), key=Key(2)) for row in x])
    )


IDS = torch.tensor([7, 3, 11, 2])


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: F.bernoulli_mask((4, 5), 0.4, key, torch.empty(0)),
        lambda key: F.uniform((4, 5), key, torch.empty(0)),
        lambda key: F.normal((4, 5), key, torch.empty(0)),
        lambda key: F.random_subset(4, 9, 3, key, torch.device("cpu")),
    ],
    ids=["bernoulli_mask", "uniform", "normal", "random_subset"],
)
def test_public_draws_are_keyed_by_the_examples(draw):
    """Rows follow their sample ids in any order; other calls, steps and seeds draw others."""
    key = F.resolve_key(Key(5, step=2, samples=IDS))
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(draw(Key(5, step=2, samples=IDS[order])), draw(key)[order])
    others = [F.fold_in(key, 1), F.fold_in(key, 2), Key(5, 1, 0, 2, IDS), Key(5, 0, 1, 2, IDS)]
    for other in (*others, Key(5, step=3, samples=IDS), Key(6, step=2, samples=IDS)):
        assert not torch.equal(draw(other), draw(key))
    assert torch.equal(draw(F.fold_in(key, 0)), draw(key))
    with pytest.raises(InputError, match="samples has to name each of the 4 examples on axis 0"):
        draw(Key(5, samples=IDS[:3]))


def test_public_draws_without_a_key_follow_the_seed_of_torch():
    def draw():
        key = F.resolve_key(None)
        return F.uniform((3, 4), key, torch.empty(0)), F.fold_in(key, 1)

    torch.manual_seed(4)
    first, second = draw(), draw()
    torch.manual_seed(4)
    assert torch.equal(draw()[0], first[0])
    assert not torch.equal(first[0], second[0])
    assert first[1].stream == second[1].stream


def test_public_draws_share_along_the_other_axes():
    x = torch.empty(0, dtype=torch.float16)
    kept = F.bernoulli_mask((2, 3, 4), 0.5, Key(1), x, "b c", "b c *")
    assert kept.shape == (2, 3, 1)
    assert kept.dtype == torch.bool
    numbers = F.normal((2, 3, 4), Key(1), x, "c", "b c *")
    assert numbers.shape == (1, 3, 1)
    assert numbers.dtype == torch.float32
    subset = F.random_subset(500, 6, 2, Key(1), torch.device("cpu"))
    assert (subset[:, 0] < subset[:, 1]).all()
    assert len(subset.unique(dim=0)) == 15


@pytest.mark.parametrize("spec", [0.3, "dropout", None])
def test_what_is_no_spec_raises(spec):
    with pytest.raises(InputError, match="spec has to be a thinned"):
        F.drop(torch.ones(2, 3), spec)
    with pytest.raises(InputError, match="spec has to be a thinned"):
        F.mask(spec, (2, 3), Key(1))


def test_a_seed_is_no_key():
    with pytest.raises(InputError, match="key has to be a thinned"):
        F.drop(torch.ones(2, 3), presets.dropout(0.5), key=1)
