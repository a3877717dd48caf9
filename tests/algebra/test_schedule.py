"""Schedules: their values, their use in layers, and compiled models."""

from __future__ import annotations

import math

import pytest
import torch

import thinned
from thinned import InputError, nn
from thinned.algebra import (
    Annealed,
    Cosine,
    Curriculum,
    Early,
    Late,
    Linear,
)

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
        is_dropped = (model[0](torch.ones(200, 50)) == 0).float().mean().item()
        assert abs(is_dropped - rate) < 4.9 * math.sqrt(0.25 / 10_000)  # alpha 1e-6


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
            "block size has to be a whole number of at least 1",
        ),
        (lambda: thinned.step(torch.nn.Linear(1, 1), -1), "step has to be a whole number"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
