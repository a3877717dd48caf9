"""Residual branches, sequences, schedules and the losses of several passes: each against its own
oracle.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import (
    Annealed,
    Bernoulli,
    Cosine,
    Curriculum,
    Drop,
    Early,
    Key,
    Late,
    Linear,
    Unscaled,
    moments,
)


def test_linear_branches_have_the_product_of_means():
    """E over all 2^3 masks of three linear residual blocks is prod (I + q_l F_l): evaluation under
    both scalings.
    """
    rng = np.random.default_rng(0)
    branches, x = rng.normal(size=(3, 4, 4)) * 0.3, rng.normal(size=4)
    rates = presets.linear_rates(3, 0.5)
    mean = np.zeros(4)
    for m in itertools.product((0, 1), repeat=3):
        h, weight = x, 1.0
        for keep, branch, p in zip(m, branches, rates, strict=True):
            h = h + keep * (branch @ h)
            weight *= 1 - p if keep else p
        mean += weight * h
    h = torch.from_numpy(x[None])
    for branch, p in zip(branches, rates, strict=True):
        h = h + F.drop(h @ torch.from_numpy(branch.T), presets.stochastic_depth(p), mode="mean")
    np.testing.assert_allclose(
        h[0].numpy(), mean, rtol=1e-8
    )  # the thresholds' rates are p to 2^-33


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_a_dropped_branch_leaves_the_skip_and_no_gradient(impl):
    x = torch.randn(40, 3, 5)
    branch = torch.randn(40, 3, 5, requires_grad=True)
    fell = ~F.mask(presets.drop_path(0.5), (40, 3, 5), Key(1)).flatten()
    assert 0 < fell.sum() < 40
    y = x + F.drop(branch, presets.drop_path(0.5), key=Key(1), impl=impl)
    y.sum().backward()
    assert torch.equal(y[fell], x[fell])
    assert not branch.grad[fell].any()
    assert torch.equal(branch.grad[~fell], torch.full((int((~fell).sum()), 3, 5), 2.0))
    assert torch.equal(y[~fell], (x + 2 * branch.detach())[~fell])


def test_one_coin_for_the_batch():
    drop = presets.stochastic_depth(0.5, per="batch")
    ones = torch.ones(30, 4)
    values = [F.drop(ones, drop, key=Key(seed)).unique().tolist() for seed in range(64)]
    assert all(len(v) == 1 for v in values)
    assert (
        16 < sum(v == [0.0] for v in values) < 48
    )  # binomial(64, 1/2): outside has probability 3e-5
    assert torch.equal(F.drop(ones, drop, mode="mean"), 0.5 * ones)


def test_keep_unscaled():
    drop = presets.drop_path(0.25, scale="unscaled")
    assert F.drop(torch.ones(100, 2), drop, key=Key(0)).unique().tolist() == [0.0, 1.0]
    assert moments(drop).gain == 0.75
    x = torch.ones(3)
    assert F.drop(x, drop, mode="mean") is x
    assert Drop.from_json(drop.to_json()) == drop
    assert isinstance(Drop(Bernoulli(0.1), scale=Unscaled()).scale, Unscaled)


def test_linear_rates():
    assert presets.linear_rates(54, 0.5)[-1] == 0.5
    expected_depth = sum(1 - p for p in presets.linear_rates(54, 0.5))
    assert math.isclose(expected_depth, (3 * 54 - 1) / 4)  # Huang et al. 2016, section 3
    for blocks, last in ((0, 0.5), (2.5, 0.5), (3, 1.5)):
        with pytest.raises(InputError):
            presets.linear_rates(blocks, last)


def test_locked_dropout_is_one_mask_over_time():
    host = nn.LockedDropout(p=0.5)
    y = host(torch.ones(8, 20, 16))
    assert torch.equal(y, y[:, :1].expand(8, 20, 16))
    assert not torch.equal(y[0], y[1])
    one = torch.randn(8, 1, 16)
    flat = F.drop(one.squeeze(1), presets.dropout(0.5), key=Key(4))
    assert torch.equal(
        F.drop(one, presets.locked_dropout(0.5), key=Key(4)).squeeze(1), flat
    )  # one step: dropout itself
    first = nn.LockedDropout(p=0.5, layout="t b d")(torch.ones(20, 8, 16))
    assert torch.equal(first, first[:1].expand(20, 8, 16))


def test_zoneout():
    new, old = torch.randn(50, 6), torch.randn(50, 6)
    kept = F.mask(presets.dropout(0.3), (50, 6), Key(2))
    y = F.zoneout(new, old, 0.3, key=Key(2))
    torch.testing.assert_close(y, torch.where(kept, new, old))
    torch.testing.assert_close(F.zoneout(new, old, 0.3, training=False), 0.7 * new + 0.3 * old)
    torch.testing.assert_close(F.zoneout(new, old, 0.0), new)
    assert torch.equal(F.zoneout(new, old, 1.0), old)
    with pytest.raises(InputError, match=r"of one shape, but got \[50, 6\] and \[6\]"):
        F.zoneout(new, old[0])


SCHEDULES = [
    (Linear(0.0, 0.5, 10), {0: 0.0, 4: 0.2, 10: 0.5, 99: 0.5}),
    (Cosine(0.4, 0.0, 10), {0: 0.4, 5: 0.2, 10: 0.0, 99: 0.0}),
    (Early(0.3, 5), {0: 0.3, 4: 0.3, 5: 0.0}),
    (Early(0.4, 4, decay=True), {0: 0.4, 2: 0.2, 4: 0.0}),
    (Late(0.3, 5), {0: 0.0, 4: 0.0, 5: 0.3}),
    (Curriculum(0.5, 0.1), {0: 0.0, 10: 0.5 * (1 - math.exp(-1)), 10_000: 0.5}),
    (Annealed(0.6, 3), {0: 0.6, 1: 0.4, 3: 0.0, 7: 0.0}),
]


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES, ids=str)
def test_schedules(schedule, expected):
    for step, rate in expected.items():
        assert math.isclose(schedule(step), rate, abs_tol=1e-12)
    model = torch.nn.Sequential(nn.Dropout(schedule), nn.DropPath(p=schedule), nn.Dropout(0.1))
    key = thinned.key(model)
    for step, rate in expected.items():
        thinned.step(model, step)
        assert [h.p for h in model] == [pytest.approx(rate), pytest.approx(rate), 0.1]
        key.at(step)
        assert model[0].p == pytest.approx(rate)
        fell = (model[0](torch.ones(200, 50)) == 0).float().mean().item()
        assert abs(fell - rate) < 4.9 * math.sqrt(0.25 / 10_000)  # alpha 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_schedule_never_recompiles():
    torch._dynamo.reset()
    import torch._dynamo.testing as testing

    counter = testing.CompileCounterWithBackend("aot_eager")
    model = torch.nn.Sequential(torch.nn.Linear(4, 64), nn.Dropout(Linear(0.0, 0.9, 8)))
    key = thinned.key(model)
    run = torch.compile(model, backend=counter, fullgraph=True)
    x = torch.randn(6, 4)
    for step in range(10):
        key.at(step)
        y = run(x)
        key.at(step)
        assert torch.equal(y == 0, model(x) == 0)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear(0.0, 1.5, 3), "start|end has to be between 0 and 1"),
        (
            lambda: Cosine(0.0, 0.5, 0),
            "steps has to be a whole number of steps of at least 1, but got 0",
        ),
        (lambda: Early(0.5, 2.5), "until has to be a whole number"),
        (lambda: Late(math.nan, 2), "nan"),
        (lambda: Curriculum(0.5, 0), "gamma has to be above 0"),
        (lambda: Annealed(-1, 3), "between 0 and 1, but got -1"),
        (
            lambda: nn.DropBlock(block_size=Linear(0, 1, 2)),
            "in the place of the rate, but got it for block",
        ),
        (lambda: thinned.step(torch.nn.Linear(1, 1), -1), "step has to be a whole number"),
        (lambda: presets.stochastic_depth(0.5, per="row"), "unknown per 'row'"),
        (lambda: nn.r_drop(torch.ones(2, 3), torch.ones(2, 4), torch.zeros(2).long()), "one shape"),
        (lambda: nn.multi_sample(torch.ones(2), [], torch.nn.Identity()), "at least one dropout"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_r_drop():
    """Against torch's own divergences; zero where the passes agree, and symmetric."""
    torch.manual_seed(0)
    a, b, target = torch.randn(7, 5), torch.randn(7, 5), torch.randint(5, (7,))
    ce = torch.nn.functional.cross_entropy

    def kl(p, q):
        return torch.nn.functional.kl_div(
            q.log_softmax(1), p.log_softmax(1), reduction="batchmean", log_target=True
        )

    paper = ce(a, target) + ce(b, target) + 0.5 * 3.0 * (kl(a, b) + kl(b, a))
    torch.testing.assert_close(nn.r_drop(a, b, target, alpha=3.0), 0.5 * paper)
    torch.testing.assert_close(nn.r_drop(a, a, target, alpha=3.0), ce(a, target))
    torch.testing.assert_close(nn.r_drop(a, b, target), nn.r_drop(b, a, target))


def test_r_drop_of_classes_that_are_ruled_out():
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    a[:, 4] = b[:, 4] = -math.inf
    a.requires_grad_()
    target = torch.tensor([0, 1, 2, 3])
    loss = nn.r_drop(a, b, target)
    torch.testing.assert_close(loss, nn.r_drop(a[:, :4], b[:, :4], target))
    loss.backward()
    assert a.grad.isfinite().all()


def test_fraternal_and_multi_sample():
    torch.manual_seed(0)
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    loss = lambda y: y.abs().mean()  # noqa: E731
    torch.testing.assert_close(
        nn.fraternal(a, b, loss, 0.2), 0.5 * (loss(a) + loss(b)) + 0.2 * ((a - b) ** 2).mean()
    )
    head, drops = torch.nn.Linear(3, 2), [nn.Dropout(0.5) for _ in range(64)]
    y = nn.multi_sample(a, drops, head)
    assert y.shape == (64, 4, 2)
    assert not torch.equal(y[0], y[1])
    for drop in drops:
        drop.eval()
    assert torch.equal(nn.multi_sample(a, drops, head)[5], head(a))
