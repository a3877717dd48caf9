"""A watched run equals an unwatched one, and its verdicts are right."""

from __future__ import annotations

import copy
import io
import json
import posixpath
import random
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned
from thinned.checks.watch import judging
from thinned.checks.watch.judging import judge
from thinned.checks.watch.units import DropCounts


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small wait for threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(p: float = 0.5, drop=nn.Dropout) -> nn.Sequential:
    hidden = [nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), drop(p), nn.Linear(32, 32)]
    return nn.Sequential(*hidden, nn.ReLU(), drop(p), nn.Linear(32, 3))


def rows(count: int, seed: int = 1, noise: float = 0.0):
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 10, generator=made)
    return x, (x[:, :3] + noise * torch.randn(count, 3, generator=made)).argmax(1)


def train(
    net, steps, watched=True, data=None, size=32, lr=1e-2, optimizer=torch.optim.Adam, **options
):
    """An ordinary loop; returns the watch, or None."""
    x, y = data or rows(256)
    opt = optimizer(net.parameters(), lr)
    watch = thinned.watch(net, loss=F.cross_entropy, **{"every": 3} | options) if watched else None
    for i in range(steps):
        at = torch.arange(i * size, (i + 1) * size) % len(x)
        loss = F.cross_entropy(net(x[at]), y[at])
        opt.zero_grad()
        loss.backward()
        opt.step()
        if watch is not None:
            watch.step(x[at], y[at], loss=loss)
    return watch


def validate(net, watch, data):
    net.eval()
    with torch.no_grad():
        watch.validated(F.cross_entropy(net(data[0]), data[1]))
    net.train()


def names(watch):
    return {v.name for v in watch.verdicts}


class Odd(nn.Module):
    """Has its own state, and draws from the generators of Python and NumPy."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last, self.calls = network(), None, 0

    def forward(self, x):
        self.calls += 1
        x = x if self.last is None or len(self.last) != len(x) else x + 0.1 * self.last
        self.last = x.detach()
        return self.inner(F.dropout(x, 0.2, self.training)) * (
            1 + 0.01 * random.random() + 0.01 * float(np.random.rand())
        )


@pytest.mark.parametrize(
    "build", [network, Odd, lambda: network(drop=thinned.nn.Dropout)], ids=["torch", "odd", "ours"]
)
def test_a_watched_run_is_the_same_bit_by_bit(build):
    torch.manual_seed(3)
    first = build()
    second = copy.deepcopy(first)
    for net, watched in ((first, False), (second, True)):
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)
        watch = train(net, 12, watched=watched, every=2)
    assert len(watch.history) == 6
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    assert getattr(first, "calls", 0) == getattr(second, "calls", 0)


class Keeps(nn.Module):
    """Keeps what it saw in containers, adds a hook to itself, and draws from its own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen, self.table = network(), [], {"calls": 0}
        self.noise = torch.Generator().manual_seed(1)

    def forward(self, x):
        self.seen.append(len(x))
        self.table["calls"] += 1
        self.net[0].register_forward_hook(lambda *_: None)
        return self.net(x + torch.rand(x.shape, generator=self.noise))


def test_containers_hooks_and_generators_of_the_model_are_restored():
    net, (x, y) = Keeps(), rows(8)
    state = net.noise.get_state()
    watch = thinned.watch(net, loss=F.cross_entropy, every=1)
    watch.step(x, y)

    def unchanged():
        assert net.seen == []
        assert net.table == {"calls": 0}
        assert torch.equal(net.noise.get_state(), state)
        assert not net.net[0]._forward_hooks
        assert not any(m._forward_pre_hooks for m in net.modules())
        assert all(m.training for m in net.modules())

    unchanged()

    class Interrupts(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    net.net.append(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        watch.step(x, y)
    unchanged()


def test_a_keyed_model_goes_on_where_it_was():
    net = network(drop=thinned.nn.Dropout)
    key = thinned.key(net, 0)
    x, y = rows(16)
    key.at(0)
    plain = [net[3](x) for _ in range(3)]
    key.at(0)
    watch = thinned.watch(net, loss=F.cross_entropy, every=1)
    seen = []
    for _ in range(3):
        seen.append(net[3](x))
        watch.step(x, y)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))


def test_a_backward_pass_may_follow_the_sample():
    net = network()
    x, y = rows(16)
    loss = F.cross_entropy(net(x), y)
    moments = net[1].running_mean
    thinned.watch(net, loss=F.cross_entropy).step(x, y, loss=loss)
    loss.backward()  # the buffers of batch normalization are unchanged, so autograd raises nothing
    assert net[1].running_mean is moments


def test_rates_and_losses_are_those_of_the_layers():
    net = network(0.3)
    watch = train(net, 60, every=2)
    rates = watch.history[-1]["rates"]
    assert list(rates) == ["3", "6"]
    mean = np.mean([r["rates"]["3"]["measured"] for r in watch.history])
    assert (
        abs(mean - 0.3) < 5 * (0.3 * 0.7 / (30 * 32 * 16)) ** 0.5
    )  # half of the units are 0 already; alpha 1e-6
    assert "L20" not in watch.findings.codes
    x, y = rows(32, 4)
    again = thinned.watch(net, loss=F.cross_entropy)
    again.step(x, y)
    net.eval()
    assert again.history[0]["eval"] == pytest.approx(
        float(F.cross_entropy(net(x), y).detach()), abs=1e-6
    )
    net[1].train()  # dropout alone is off
    assert again.history[0]["without"] == pytest.approx(
        float(F.cross_entropy(net(x), y).detach()), abs=1e-6
    )


def test_gap_that_is_only_dropout():
    data, valid = rows(4096, 1), rows(2048, 2)
    net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
    watch = train(net, 300, data=data, size=128, every=12)
    validate(net, watch, valid)
    assert "gap-is-dropout" in names(watch)
    assert "overfitting" not in names(watch)
    (found,) = watch.findings.of("L16")
    measured = dict(found.evidence)
    assert measured["train"] > measured["validation"] * 1.1
    net.eval()
    assert measured["validation"] == pytest.approx(
        float(F.cross_entropy(net(valid[0]), valid[1]).detach()), abs=1e-6
    )


def test_overfitting():
    data, valid = rows(64, 1, noise=1.0), rows(512, 2, noise=1.0)
    net = network(0.1)
    watch = train(net, 40, data=data, every=5)
    validate(net, watch, valid)
    for _ in range(2):
        more = train(net, 80, data=data, every=5)
        more.history = watch.history + [r | {"step": r["step"] + 40} for r in more.history]
        watch = more
        validate(net, watch, valid)
    assert "overfitting" in names(watch)
    assert not watch.findings.of("L16")
    assert "stop there" in str(watch.verdicts) or "Raise the rates" in str(watch.verdicts)


def test_underfitting_by_too_much_dropout():
    data, valid = rows(2048, 1), rows(512, 2)
    net = nn.Sequential(
        nn.Linear(10, 32),
        nn.ReLU(),
        nn.Dropout(0.9),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Dropout(0.9),
        nn.Linear(32, 3),
    )
    watch = train(net, 300, data=data, size=64, every=10, lr=1e-3)
    validate(net, watch, valid)
    assert "dropout-too-strong" in names(watch)
    assert "overfitting" not in names(watch)
    light = network(0.2)
    fine = train(light, 300, data=data, size=64, every=10, lr=1e-3)
    validate(light, fine, valid)
    assert "dropout-too-strong" not in names(fine)


def test_dropout_without_effect():
    watch = train(network(0.001), 30)
    assert "no-effect" in names(watch)


def record(step, eval_loss, train=None, **rates):
    losses = {"train": eval_loss if train is None else train, "eval": eval_loss}
    sites = {
        name: {"kind": "dropout", "nominal": 0.5, "measured": 0.5, "in_train": True, "in_eval": on}
        for name, on in (rates or {"drop": False}).items()
    }
    empty = {"masks": {}, "dead": {}, "shift": {}, "gradients": {}, "inactive": []}
    return {"what": "sample", "step": step, "loss": None, "without": eval_loss, "rates": sites} | (
        losses | empty | {"training": True}
    )


def validation(step, loss, training=False):
    return {"what": "validation", "step": step, "loss": loss, "training": training}


def test_like_is_compared_with_like():
    """The loss halves every 10 steps; validation equals the loss of that moment in training."""
    samples = [record(s, 4.0 * 0.5 ** (s / 10), 4.2 * 0.5 ** (s / 10)) for s in range(0, 80, 2)]
    for at in (20, 40, 60):
        before = [r for r in samples if r["step"] <= at]
        after = [r for r in samples if r["step"] > at]
        for history in (
            [*before, validation(at, before[-1]["eval"])],
            [*before, validation(at, before[-1]["eval"]), *after],
        ):
            found = {v.name for v in judge(history, 8)[0]}
            assert not found & {"overfitting", "gap-is-dropout"}, (at, found)
        losses = judging.losses_of([*before, validation(at, 1.0), *after], 8)
        assert losses.step == at
        assert losses.samples == 4
        assert losses.eval == pytest.approx(np.mean([r["eval"] for r in before[-4:]]))
    flat = [record(s, 0.5 + 0.001 * (s % 3), 0.7) for s in range(30)]
    assert {v.name for v in judge([*flat, validation(29, 0.9)], 8)[0]} == {"overfitting"}
    assert judging.losses_of(flat, 8).samples == 8


def test_no_verdict_where_evaluation_draws():
    history = [record(s, 0.5 + 0.001 * (s % 3), 0.5, a=True, b=False) for s in range(10)]
    history.append(validation(9, 0.9))
    (verdict,), findings = judge(history, 8)
    assert verdict.name == "not-comparable"
    assert "a draws in evaluation too" in verdict.text
    assert findings.codes == {"L1"}
    quiet = [r | {"rates": record(0, 0.0)["rates"]} if "rates" in r else r for r in history]
    assert "not-comparable" not in {v.name for v in judge(quiet, 8)[0]}


@pytest.mark.parametrize("p", [0.001, 0.3, 0.5])
def test_the_header_and_the_sentences_name_the_same_numbers(p):
    net = network(p)
    watch = train(net, 40, every=2)
    validate(net, watch, rows(64, 2))
    losses = judging.losses_of(watch.history, watch.window)
    header = str(watch).splitlines()[0]
    assert str(losses) in header
    assert f"validation loss {losses.valid:.4g} (step 40)" in header
    said = re.findall(r"\d+\.\d+(?:e-\d+)?", " ".join(v.text for v in watch.verdicts))
    assert said
    lowest = min(r["loss"] for r in watch.history if r["what"] == "validation")
    known = {f"{x:.4g}" for x in (losses.train, losses.without, losses.eval, losses.valid, lowest)}
    assert set(said) <= known
    assert set(said) <= set(re.findall(r"\d+\.\d+(?:e-\d+)?", header))


def test_four_samples_of_any_run():
    watch = train(network(), 8, every=None, budget=1e-9)
    assert [r["step"] for r in watch.history] == [1, 2, 4, 8]
    assert "too-early" not in names(watch)
    assert re.search(r"overhead [\d.]+% \([\d.e-]+ s a sample\)", str(watch))


def test_a_validation_in_training_mode():
    net = network()
    watch = train(net, 20)
    watch.validated(50.0)
    (found,) = watch.findings.of("L25")
    assert found.rule.name == "validation-in-training-mode"
    assert "last at step 20" in found.message
    assert not names(watch) & {"overfitting", "validation-easier"}
    assert "validation loss" not in str(watch).splitlines()[0]
    validate(net, watch, rows(64, 2))
    assert watch.findings.of("L25")
    right = train(network(), 20)
    validate(right._model, right, rows(64, 2))
    assert not right.findings.of("L25")


def test_dead_units():
    net = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Dropout(0.1), nn.Linear(20, 3))
    with torch.no_grad():
        net[0].bias[:7] = -100.0
    watch = train(net, 24, window=8)
    assert watch.history[-1]["dead"] == {"1": [7, 20]}
    assert watch.history[-2]["dead"] == {"1": [0, 20]}  # a window of 8 samples, and this is the 7th
    assert "dead-units" in names(watch)


def test_dead_channels_of_functional_relu_called_twice():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv1d(1, 4, 3), nn.Conv1d(4, 5, 3)

        def forward(self, x):
            return F.relu(self.two(torch.relu(self.one(x))))

    net = Net()
    with torch.no_grad():
        net.one.bias[0], net.two.bias[:2] = -100.0, -100.0
        net.one.bias[1:], net.two.bias[2:] = 10.0, 100.0
    watch = thinned.watch(net, every=1, window=4)
    for _ in range(4):
        watch.step(torch.randn(3, 1, 9))
    assert watch.history[-1]["dead"] == {"": [1, 4], "#2": [2, 5]}


def test_a_part_left_in_evaluation():
    net = network()
    net[6].eval()
    watch = train(net, 4)
    assert [f.site for f in watch.findings.of("L21")] == ["6"]
    assert list(watch.history[-1]["rates"]) == ["3"]
    net.eval()
    assert [f.site for f in train(net, 4).findings.of("L21")] == [""]
    assert not train(network(), 4).findings.of("L21")


def scheduled():
    ramp = thinned.algebra.schedule.Linear(0.1, 0.4, 1000)
    return nn.Sequential(nn.Linear(10, 8), thinned.nn.Dropout(ramp), nn.Linear(8, 3))


def test_a_schedule_that_nothing_advances():
    net = scheduled()
    watch = train(net, 8, every=1)
    assert not watch.findings.of("L37")  # the first epoch is not over
    watch.validated(1.0)
    watch.step(*rows(8))
    assert [f.site for f in watch.findings.of("L37")] == ["1"]
    assert train(scheduled(), 102, every=101).findings.codes == {"L37"}
    for advance in (lambda net: thinned.step(net, 0), lambda net: thinned.key(net).at(0)):
        net = scheduled()
        advance(net)
        assert not train(net, 102, every=101).findings.of("L37")


def test_functional_dropout_that_evaluation_does_not_reach():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(10, 3)

        def forward(self, x):
            return F.dropout(self.fc(x), 0.2)

    found = train(Net(), 4).findings.of("L1")
    assert len(found) == 1
    assert "F.dropout test_watching.py" in found[0].site


def test_a_rate_that_is_not_met():
    class Bernoullis(nn.Module):
        def forward(self, x):
            return x * torch.empty_like(x).bernoulli_(0.7)

    net = nn.Sequential(nn.Linear(10, 32), Bernoullis(), nn.Linear(32, 3))
    assert not train(net, 36).findings.of("L20")

    record = {"what": "sample", "step": 1, "loss": None, "train": None, "eval": None}
    record |= {"without": None, "inactive": [], "training": True}
    record |= {"masks": {}, "dead": {}, "shift": {}, "gradients": {}}
    site = {"kind": "dropout", "nominal": 0.1, "in_train": True, "in_eval": False}
    wrong = [
        record | {"rates": {"a": site | {"measured": 0.05 + 0.002 * (i % 3)}}} for i in range(10)
    ]
    right = [
        record | {"rates": {"a": site | {"measured": 0.1 + 0.02 * (i % 3 - 1)}}} for i in range(10)
    ]
    assert judge(wrong, 8)[1].codes == {"L20"}
    assert not judge(right, 8)[1]


def test_the_same_mask_at_every_step():
    class Seeded(nn.Dropout):
        def forward(self, x):
            torch.manual_seed(0)
            return super().forward(x)

    net = network(drop=Seeded)
    assert {f.site for f in train(net, 15).findings.of("L18")} == {"3", "6"}
    assert not train(network(), 15).findings.of("L18")
    ours = network(drop=thinned.nn.Dropout)
    with thinned.frozen(ours):
        assert {f.site for f in train(ours, 15).findings.of("L18")} == {"3", "6"}
    assert not train(ours, 15).findings.of("L18")


def test_units_that_are_always_or_never_dropped():
    kept = (torch.arange(32) % 2 == 0).float()
    counts = DropCounts()
    for _ in range(30):
        x = torch.randn(8, 32)
        counts.update(x, x * kept * 2, 1, False)
    assert counts.record(0.5) == {
        "units": 32,
        "repeats": 0,
        "passes": 30,
        "always": 16,
        "never": 16,
    }
    assert counts.record(0.01)["never"] == 0  # at 1 % that is chance


def test_variance_shift_is_that_of_the_formula():
    """Li et al. 2019: zero-mean input dropped right before batch normalization has Var_eval /
    Var_train = 1 - p.
    """
    net = nn.Sequential(nn.Dropout(0.4), nn.BatchNorm1d(50))
    watch = thinned.watch(net, every=1)
    for _ in range(6):
        watch.step(torch.randn(2000, 50))
    (found,) = watch.findings.of("L5")
    assert found.site == "1"
    assert dict(found.evidence)["ratio"] == pytest.approx(0.6, abs=0.01)
    reverse = thinned.watch(nn.Sequential(nn.BatchNorm1d(50), nn.Dropout(0.4)), every=1)
    for _ in range(6):
        reverse.step(torch.randn(200, 50))
    assert not reverse.findings.of("L5")


def test_gradients():
    net = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))
    x, y = rows(32)
    watch = thinned.watch(net, loss=F.cross_entropy, every=1)
    for i in range(6):
        for p in net.parameters():
            p.grad = torch.full_like(p, 2.0 if i < 5 else 900.0)
        for p in net[0].parameters():
            p.grad.mul_(1e-8)
        watch.step(x, y)
        assert ("exploding" in names(watch)) == (i == 5)
    assert watch.history[0]["gradients"] == {"0": pytest.approx(2e-8), "2": pytest.approx(2.0)}
    assert "vanishing" in names(watch)
    net[0].weight.grad[0, 0] = torch.nan
    watch.step(x, y)
    assert "gradient-not-finite" in names(watch)


def test_the_budget_is_respected(monkeypatch):
    from thinned.checks.watch import watching

    now = [0.0]
    monkeypatch.setattr(watching.time, "perf_counter", lambda: now[0])

    def sample(*args):
        now[0] += 2.0
        return {"train": None, "eval": None, "without": None, "rates": {}}

    monkeypatch.setattr(watching, "measure", sample)
    watch = thinned.watch(nn.Linear(1, 1), budget=0.05, log=lambda values: None)
    monkeypatch.setattr(watch._sinks, "write", lambda *a: None)
    for _ in range(1000):
        now[0] += 1.0
        watch.step(torch.zeros(1))
    assert 0.04 < watch.overhead <= 0.05
    assert watch.elapsed == 999
    assert len(watch.history) == 24
    now[0] += 1e6  # a validation
    watch.step(torch.zeros(1))
    assert watch.elapsed == pytest.approx(999 + 5 * 999 / 1000, abs=0.01)


def test_resume():
    net = network()
    watch = train(net, 20)
    other = thinned.watch(net, loss=F.cross_entropy, every=3)
    other.load_state_dict(copy.deepcopy(watch.state_dict()))
    x, y = rows(32)
    for one in (watch, other):
        torch.manual_seed(7)
        one.step(x, y)
        one.step(x, y)
    kept = [{k: v for k, v in one.history[-1].items() if k != "seconds"} for one in (watch, other)]
    assert kept[0] == kept[1]
    assert kept[0]["step"] == 22
    assert watch.history[-1]["masks"]["3"]["passes"] == 8


def test_save_load_plot(tmp_path):
    net = network()
    watch = train(net, 20)
    validate(net, watch, rows(64, 2))
    path = watch.save(tmp_path / "run.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["run.jsonl"]
    again = thinned.Watch.load(path)
    assert again.history == watch.history
    assert str(again) == str(watch)
    assert again.verdicts == watch.verdicts
    assert again.step(*rows(4)) is False
    assert again.plot(tmp_path / "run.png").stat().st_size > 10_000
    with pytest.raises(thinned.InputError, match="at least one sample"):
        thinned.watch(net).plot(tmp_path / "none.png")
    (tmp_path / "bad").write_text(json.dumps({"what": "else"}))
    with pytest.raises(thinned.InputError, match="has to hold the records of a watch"):
        thinned.Watch.load(tmp_path / "bad")


def test_sinks():
    class Board:
        def __init__(self) -> None:
            self.seen = []

        def add_scalar(self, name, value, step) -> None:
            self.seen.append((name, value, step))

    class Logger:
        def log_metrics(self, values, step) -> None:
            got.append((values, step))

    class Run:
        def log(self, values) -> None:
            got.append((values, values["watch/step"]))

    got, called, board = [], [], Board()
    net = network()
    watch = train(net, 4, log=[board, Logger(), Run(), called.append])
    validate(net, watch, rows(16))
    assert {n for n, _, _ in board.seen} >= {
        "watch/rate/3",
        "watch/loss/train_mode",
        "watch/loss/validation",
        "watch/gradient/0",
    }
    assert {s for _, _, s in board.seen} == {1, 4}
    assert len(got) == 2 * len(called) == 6
    with pytest.raises(thinned.InputError, match="log has to be"):
        thinned.watch(net, log=3)


class Odd(nn.Module):
    """Names that loggers refuse: lines of code, the model itself, two that differ in an illegal
    character only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {"a:b": nn.Dropout(0.5), "a_b": nn.Dropout(0.25), "/ä": nn.Dropout(0.1)}
        )
        self.fc = nn.Linear(10, 3)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return F.dropout(self.fc(x), 0.2, self.training) + self.bias


def mlflow_refuses(name):
    """The rule of MLflow on its strictest system: characters, and a normalized path."""
    return (
        not re.fullmatch(r"[/A-Za-z0-9_.\- ]+", name)
        or posixpath.normpath(name) != name
        or name.startswith(("..", "/"))
    )


def test_names_are_legal_for_all_loggers():
    values, net = [], Odd()
    train(net, 1, log=values.append)
    assert not [name for name in values[0] if mlflow_refuses(name)]
    rates = {name: value for name, value in values[0].items() if name.startswith("watch/rate/")}
    assert rates["watch/rate/layers.a_b"] == pytest.approx(
        0.25, abs=0.15
    )  # the legal name keeps its value
    assert rates["watch/rate/layers.a_b_"] == pytest.approx(0.5, abs=0.15)
    assert "watch/rate/layers.__" in rates
    assert len(rates) == 4
    assert any(
        re.match(r"watch/rate/_the model_ .*dropout test_watching.py_\d+$", name) for name in rates
    )
    assert {"watch/gradient/fc", "watch/gradient/_the model_"} <= values[0].keys()


def test_tensorboard_holds_what_was_watched(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with train(Odd(), 4, log=str(tmp_path)) as watch:
        watch.validated(0.5)
    read = EventAccumulator(str(tmp_path)).Reload()
    losses = [(event.step, event.value) for event in read.Scalars("watch/loss/train_mode")]
    samples = [r for r in watch.history if r["what"] == "sample"]
    assert losses == [(r["step"], pytest.approx(r["train"])) for r in samples]
    assert [(e.step, e.value) for e in read.Scalars("watch/loss/validation")] == [(4, 0.5)]
    assert sum(tag.startswith("watch/rate/") for tag in read.Tags()["scalars"]) == 4


def test_mlflow_holds_what_was_watched(tmp_path, monkeypatch):
    """The package itself, on a folder."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tmp_path.as_uri())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of the file store
        mlflow.set_experiment("watched")
        with mlflow.start_run() as run:
            watch = train(Odd(), 4, log=mlflow)
        metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["watch/loss/train_mode"] == pytest.approx(watch.history[-1]["train"])
    assert sum(name.startswith("watch/rate/") for name in metrics) == 4


def test_inputs_of_many_kinds():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.drop = nn.Linear(10, 3), nn.Dropout(0.2)

        def forward(self, a, b, *, scale=1.0, labels=None):
            out = self.drop(self.fc(a + b)) * scale
            return out if labels is None else {"loss": F.cross_entropy(out, labels), "logits": out}

    net = Two()
    x, y = rows(8)
    for given, loss in (((x, x, y), F.cross_entropy), ((x, x), None)):
        watch = thinned.watch(net, loss=loss)
        assert watch.step(*given, scale=0.5, **({} if loss else {"labels": y}))
        net.eval()
        assert watch.history[0]["eval"] == pytest.approx(
            float(F.cross_entropy(net(x, x, scale=0.5), y).detach())
        )
        net.train()
    watch = thinned.watch(
        net, forward=lambda model, batch: F.cross_entropy(model(batch["x"], batch["x"]), batch["y"])
    )
    watch.step({"x": x, "y": y})
    assert watch.history[0]["train"] > 0


def test_compiled_models_are_watched_without_compiling_again():
    net = network()
    compiled = torch.compile(net, backend="aot_eager")
    x, y = rows(32)
    watch = thinned.watch(compiled, loss=F.cross_entropy, every=1)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            F.cross_entropy(compiled(x), y).backward()
            watch.step(x, y)
    assert list(watch.history[-1]["rates"]) == ["3", "6"]
    inplace = network()
    inplace.compile(backend="aot_eager")
    assert thinned.watch(inplace, loss=F.cross_entropy).step(x, y)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"every": 0}, "every has to be at least 1"),
        ({"budget": 0.0}, "budget has to be above 0"),
        ({"window": 3}, "window has to be at least 4"),
        ({"ranks": "some"}, "ranks has to be"),
        ({"loss": F.cross_entropy, "forward": F.cross_entropy}, "exclude each other"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(thinned.InputError, match=text):
        thinned.watch(network(), **arguments)


def test_a_scripted_model_and_a_missing_target():
    with pytest.raises(thinned.InputError, match="has to be the target"):
        thinned.watch(network(), loss=F.cross_entropy).step()


def test_terminal():
    from rich.console import Console

    from thinned.checks.watch.view import View

    watch = train(network(), 20)
    for terminal in (True, False):
        console = Console(record=True, force_terminal=terminal, width=120, file=io.StringIO())
        view = View(console)
        view.show(watch)
        view.close()
        assert "step 20; 7 samples" in console.export_text()
