"""How the live checks treat a model: what they restore, refuse, unwrap and report."""

from __future__ import annotations

import json
import math
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import thinned
from thinned.checks.finding import Finding, Findings
from thinned.checks.live import norms, outputs, record, same_masks_on_ranks
from thinned.checks.rules import RULES

from ...processes import ranks


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small wait for threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def group(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def rows(n=16, width=10):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(1))


def leaky(width=10):
    """F.dropout without training= behind a linear layer: L1."""

    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(width, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.last(F.dropout(F.relu(self.first(x)), 0.4))

    return Leaky()


class Busy(nn.Module):
    """Changes everything that a pass can change, and raises in the call ``raises_at``."""

    def __init__(self, raises_at=None):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.frozen = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval().requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.loose, self.made, self.calls, self.names, self.table = (
            torch.zeros(3),
            None,
            0,
            ["a"],
            {"a": 1},
        )
        self.noise = torch.Generator().manual_seed(5)
        self.raises_at = raises_at

    def forward(self, x):
        self.calls += 1
        if self.calls == self.raises_at:
            raise ZeroDivisionError("the model's own")
        self.seen += 1
        self.loose += 1
        self.made, self.another = x, x
        self.names.append("b")
        self.table["b"] = 2
        out = self.frozen(self.net(x + 0.01 * torch.rand(x.shape, generator=self.noise)))
        return out * (1 + 0.01 * random.random() + 0.01 * float(np.random.rand()))


def state(model):
    """The visible state of a model and of the generators, as one comparable value."""

    def comparable(v):
        if isinstance(v, torch.Generator):
            v = v.get_state()
        return (str(v.dtype), str(v.tolist())) if isinstance(v, torch.Tensor) else repr(v)

    attributes = {
        (n, k): comparable(v)
        for n, m in model.named_modules()
        for k, v in vars(m).items()
        if k not in ("_parameters", "_buffers")
    }
    tensors = {n: comparable(t) for n, t in [*model.named_parameters(), *model.named_buffers()]}
    places = {n: id(t) for n, t in [*model.named_parameters(), *model.named_buffers()]}
    grads = {
        n: (id(p.grad), None if p.grad is None else comparable(p.grad))
        for n, p in model.named_parameters()
    }
    modes = {n: m.training for n, m in model.named_modules()}
    drawn = (
        comparable(torch.get_rng_state()),
        repr(random.getstate()),
        repr(np.random.get_state()),
    )
    return attributes, tensors, places, grads, modes, drawn


@pytest.mark.parametrize("raises_at", [None, 1, 2, 3, 4, 6, 17, 19, 20, 25])
def test_restores_the_model(raises_at):
    model = Busy(raises_at)
    model.train()
    model.frozen.eval()
    model.net[3].eval()
    model.net[0].register_forward_hook(lambda *_: None)
    model.net[0].weight.grad = torch.full_like(model.net[0].weight, 0.5)
    before = state(model)
    if (
        raises_at is None or raises_at > 22
    ):  # an error of the copy in double precision is no error of the check
        found = thinned.check(model, rows(), loss=F.cross_entropy, target=torch.arange(16) % 3)
        assert ("L21", "net.3") in {(f.code, f.site) for f in found}
    else:
        with pytest.raises(ZeroDivisionError, match="the model's own") as error:
            thinned.check(model, rows(), loss=F.cross_entropy, target=torch.arange(16) % 3)
        assert any(
            n.startswith("thinned.check: raised in ") and "pass" in n for n in error.value.__notes__
        )
    for one, other in zip(before, state(model), strict=True):
        assert one == other


def test_restores_keys_and_inputs():
    model = nn.Sequential(
        nn.Linear(10, 16), nn.ReLU(inplace=True), thinned.nn.Dropout(0.5), nn.Linear(16, 3)
    )
    key = thinned.key(model, 3)
    x = rows().requires_grad_()
    key.at(4)
    expected = model(x)
    key.at(4)
    thinned.check(model, x)
    assert x.grad is None
    assert torch.equal(x, rows())
    assert torch.equal(model(x), expected)


def test_same_seed_same_findings():
    def run(seed):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(10, 64), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 3)
        )
        torch.manual_seed(seed)  # where the generators stand does not count
        random.seed(seed)
        return thinned.check(model, rows(64), seed=7)

    one, two = run(1), run(2)
    assert one.codes == {"L5"}
    assert one == two
    assert one.unchecked == two.unchecked
    assert dict(one[0].evidence)["ratio"] < 0.9


def test_a_shift_that_propagates_is_one_finding():
    parts = [
        m
        for _ in range(4)
        for m in (nn.Linear(32, 32), nn.Dropout(0.5), nn.BatchNorm1d(32), nn.ReLU())
    ]
    (one,) = thinned.check(nn.Sequential(nn.Linear(10, 32), *parts), rows(64), select="L5")
    assert one.site == "3"
    evidence = dict(one.evidence)
    assert evidence["others"] == 3
    assert abs(evidence["ratio"] - evidence["predicted"]) < 8 * evidence["standard error"]
    assert "3 more are off, the farthest " in one.message


def test_right_gradients_are_checked():
    """Models that ask for the gradient of their input, kernels that round otherwise, and inputs
    with a gradient are checked.
    """

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(10, 16), nn.Dropout(0.5), nn.Linear(16, 3))

        def forward(self, x):
            x = x[:, None]
            if self.training:
                x.requires_grad = True
            return self.net(x[:, 0]) * (1 + 4e-16 * torch.is_grad_enabled())

    ordinary = nn.Sequential(nn.Linear(10, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    for model, x in ((Asks(), rows()), (ordinary, rows().requires_grad_())):
        found = thinned.check(model, x)
        assert found == ()
        assert "L30" not in dict(found.unchecked)


def test_statistics_of_few_passes_are_left_unchecked():
    model, x = (
        nn.Sequential(nn.Linear(10, 64), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.Linear(64, 3)),
        rows(64),
    )
    found = thinned.check(model, x, samples=8, select=["L5", "L15"], purpose="regression")
    assert found == ()
    assert dict(found.unchecked)["L5"] == "needs 16 samples, but has 8"
    found = thinned.check(
        nn.Sequential(nn.Linear(10, 64), nn.Dropout(0.5)),
        x,
        samples=15,
        select="L15",
        purpose="regression",
    )
    assert dict(found.unchecked)["L15"] == "needs 16 samples, but has 15"


def student_tail(t, degrees):
    """P(|T| > t) of Student's T, by quadrature."""
    x = torch.linspace(t, 4000.0, 4_000_001, dtype=torch.float64)
    log = torch.lgamma(torch.tensor((degrees + 1) / 2, dtype=torch.float64))
    log = (
        log
        - torch.lgamma(torch.tensor(degrees / 2, dtype=torch.float64))
        - 0.5 * math.log(degrees * math.pi)
    )
    return 2 * float(
        torch.trapezoid((log - (degrees + 1) / 2 * torch.log1p(x * x / degrees)).exp(), x)
    )


def test_chances_of_false_alarms():
    """Means over the smallest number of passes, for normal noise; counts by Chernoff's bound,
    compared with enumeration.
    """
    assert abs(student_tail(2.1314, 15) - 0.05) < 1e-5
    assert student_tail(norms.ERRORS, norms.LEAST - 1) < 1e-6
    assert student_tail(outputs.ERRORS, 15) < 1e-6
    for n, rate in ((40, 0.5), (200, 0.1), (64, 0.3)):
        chance = sum(
            math.comb(n, k) * rate**k * (1 - rate) ** (n - k)
            for k in range(n + 1)
            if record.differs_beyond_chance(k / n, rate, n, 1e-3)
        )
        assert 0 < chance <= 1e-3


def test_ties_in_max_pooling_are_no_stopped_gradient():
    class Stopped(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop, self.last = nn.Linear(10, 8), nn.Dropout(0.3), nn.Linear(8, 3)

        def forward(self, x):
            h = self.first(x)
            return self.last(self.drop(h + h.detach()))

    parts = [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Dropout(0.3), nn.Flatten()]
    pooled = nn.Sequential(*parts, nn.Linear(36, 3))
    noise = torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    for model, x, why in (
        (pooled, torch.ones(8, 1, 6, 6), "the function has a kink here"),
        (pooled, noise, None),
        (Stopped(), rows(), "the gradient differs without dropout too"),
    ):
        found = thinned.check(model, x, select="L30")
        assert found == ()
        assert (why is None) == ("L30" not in dict(found.unchecked))
        assert why is None or why in dict(found.unchecked)["L30"]


def head(*last):
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3), *last)


class Inside(nn.Module):
    """Computes its loss itself, and returns it."""

    def __init__(self, loss, *last):
        super().__init__()
        self.net, self.loss = head(*last), loss

    def forward(self, x):
        return self.loss(self.net(x), torch.arange(len(x)) % 3)


def test_purposes_are_inferred():
    drop = nn.Dropout(0.5)
    target = torch.arange(16) % 3
    # the loss says it: a function, a module, or one that the model calls
    for loss in (F.cross_entropy, nn.CrossEntropyLoss()):
        assert thinned.check(head(drop), rows(), loss=loss, target=target).codes == {"L14"}
    assert thinned.check(Inside(F.cross_entropy, drop), rows()).codes == {"L14"}
    assert thinned.check(Inside(F.cross_entropy), rows()).codes == set()
    # a softmax on the output makes it a classification; features may be dropped
    assert thinned.check(nn.Sequential(head(), nn.Softmax(-1), drop), rows()).codes == set()
    found = thinned.check(head(drop), rows())
    assert "L14" in dict(found.unchecked)
    # a mean shift behind ReLU is that of a regression
    shifted = nn.Sequential(nn.Dropout(0.5), nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
    with torch.no_grad():
        shifted[3].weight.abs_()
    x, y = rows(64), torch.zeros(64, 1)
    assert "L15" in dict(thinned.check(shifted, x).unchecked)
    for loss in (F.mse_loss, nn.MSELoss()):
        assert thinned.check(shifted, x, loss=loss, target=y).codes == {"L15"}
    own = thinned.check(shifted, x, loss=lambda out, y: (out - y).square().mean(), target=y)
    assert "L15" in dict(own.unchecked)
    # sampling is active
    quiet = head(thinned.nn.Dropout(0.0), nn.Linear(3, 3))
    with thinned.sampling(quiet):
        assert thinned.check(quiet, rows()).codes == {"L29"}
    assert thinned.check(quiet, rows()).codes == set()


def test_several_purposes():
    model = nn.Sequential(leaky(), nn.Dropout(0.5))
    found = thinned.check(model, rows(), purpose=["classification", "policy"])
    assert found.codes == {"L1", "L13", "L14"}
    found = thinned.check(model, rows(), purpose={"monte carlo", "classification"})
    assert found.codes == {"L14"}
    with pytest.raises(thinned.InputError, match="unknown purpose 'policies'"):
        thinned.check(model, rows(), purpose=["regression", "policies"])


def test_select():
    model, x = nn.Sequential(leaky(), nn.Dropout(0.5)), rows()
    all_of = thinned.check(model, x, purpose="classification")
    assert all_of.codes == {"L1", "L14"}
    for wanted in ("L1", "l1", "dropout-without-training", ["Dropout-Without-Training"]):
        assert thinned.check(model, x, purpose="classification", select=wanted) == all_of.of("L1")
    both = thinned.check(
        model, x, purpose="classification", select=["L14", "dropout-without-training"]
    )
    assert both.codes == {"L1", "L14"}
    assert thinned.check(model, x, select=["L8"]) == ()
    assert {what for what, _ in thinned.check(model, x, select=["L13", "L9"]).unchecked} == {
        "L13",
        "L9",
    }


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"select": "L99"}, "unknown rule 'L99'"),
        ({"select": [3]}, "unknown rule 3"),
        ({"select": "dropout-without-trainin"}, "did you mean 'dropout-without-training'"),
        ({"select": "L7"}, "rule L7 does not apply to a running model"),
        ({"purpose": "policies"}, "did you mean 'policy'"),
        ({"samples": 3}, "samples has to be at least 4"),
        ({"samples": 4.5}, "samples has to be a whole number"),
        ({"seed": -1}, "seed has to be at least 0"),
        ({"seed": True}, "seed has to be a whole number"),
        ({"loss": torch.tensor(1.0)}, "loss has to be a function"),
        ({"target": torch.zeros(3)}, "target is for the loss, but there is none"),
    ],
)
def test_arguments(options, text):
    model = leaky()
    model.forward = None  # nothing may run before the arguments are read
    with pytest.raises(thinned.InputError, match=text):
        thinned.check(model, rows(), **options)


def test_refused_models():
    with pytest.raises(thinned.InputError, match=r"torch\.nn\.Module, but got function"):
        thinned.check(lambda x: x, rows())
    with pytest.raises(thinned.InputError, match="it needs its inputs"):
        thinned.check(leaky())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that scripting is old
        scripted = torch.jit.script(nn.Sequential(nn.Linear(10, 3), nn.Dropout(0.5)))
    for model in (scripted, nn.Sequential(scripted)):
        with pytest.raises(thinned.InputError, match="a scripted model cannot be observed"):
            thinned.check(model, rows())
    with pytest.raises(thinned.InputError, match=r"0\.weight has no shape yet; run the model once"):
        thinned.check(nn.Sequential(nn.LazyLinear(3)), rows())
    with pytest.raises(thinned.InputError, match=r"0\.weight is on the meta device"):
        thinned.check(nn.Sequential(nn.Linear(10, 3, device="meta")), rows())


def test_sharded_is_refused_and_ranks_are_counted(group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    model = nn.Sequential(nn.Linear(10, 3))
    mesh = init_device_mesh("cpu", (1,))
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh, [Replicate()]))
    with pytest.raises(thinned.InputError, match=r"0\.weight is sharded"):
        thinned.check(model, rows())
    with pytest.raises(thinned.InputError, match="a group of one rank has no masks to compare"):
        same_masks_on_ranks(leaky(), rows())


def test_no_group():
    with pytest.raises(thinned.InputError, match="there is no process group"):
        same_masks_on_ranks(leaky(), rows())


def test_parallel_models_are_unwrapped(group):
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(10, 10) for _ in range(4))

        def forward(self, x):
            for layer in self.layers:
                if not self.training or random.random() > 0.4:
                    x = x + layer(x)
            return x

    parallel = nn.parallel.DistributedDataParallel
    assert {(f.code, f.site) for f in thinned.check(parallel(leaky()), rows())} == {("L1", "")}
    assert thinned.check(parallel(Skips()), rows()).codes == {"L28"}
    assert thinned.check(parallel(Skips(), find_unused_parameters=True), rows()).codes == set()
    assert thinned.check(nn.DataParallel(leaky()), rows()).codes == {"L1"}


def test_compiled_models_are_unwrapped():
    wrong, right = leaky(), nn.Sequential(nn.Linear(10, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    assert thinned.check(torch.compile(wrong, backend="eager"), rows()) == thinned.check(
        wrong, rows()
    )
    assert thinned.check(torch.compile(right, backend="eager"), rows()) == ()
    part = nn.Sequential(nn.Linear(10, 10), torch.compile(wrong, backend="eager"))
    with torch.no_grad():
        part(rows())
    assert thinned.check(part, rows()).codes == {"L1"}


class OneWay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("this goes forward only")


def test_backward_that_raises():
    class Inference(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = leaky()

        def forward(self, x):
            return OneWay.apply(self.inner(x))

    found = thinned.check(Inference(), rows())
    assert found.codes == {"L1"}
    whys = dict(found.unchecked)
    for code in ("L8", "L30"):
        assert whys[code] == "the backward pass raised NotImplementedError: this goes forward only"


def test_without_gradients():
    found = thinned.check(leaky().requires_grad_(False), rows())
    assert found.codes == {"L1"}
    assert dict(found.unchecked)["L30"] == "no gradient reaches the output of the model"


class Shapes(nn.Module):
    """A model with integer inputs and a chosen structure of its output."""

    def __init__(self, wrong, out):
        super().__init__()
        self.words, self.last, self.wrong, self.out = (
            nn.Embedding(50, 16),
            nn.Linear(16, 4),
            wrong,
            out,
        )

    def forward(self, *, ids, mask=None):
        x = self.words(ids)
        x = F.dropout(x, 0.3, self.wrong or self.training)
        y = self.last(x if mask is None else x * mask.unsqueeze(-1))
        return self.out(y)


class Output(dict):
    """As libraries return: a dict with attributes, of a class of its own."""

    def __init__(self, logits):
        super().__init__(logits=logits)
        self.logits = logits


@pytest.mark.parametrize(
    "out",
    [
        lambda y: {"logits": y, "aux": {"sum": y.sum(), "name": "x"}},
        lambda y: (y, None, [y.sum(-1), 3]),
        Output,
        lambda y: y.to(torch.complex64),
    ],
    ids=["dict", "tuple", "object", "complex"],
)
@pytest.mark.parametrize("wrong", [False, True])
def test_structures(wrong, out):
    ids, mask = torch.arange(40).view(8, 5), torch.ones(8, 5)
    found = thinned.check(Shapes(wrong, out), ids=ids, mask=mask)
    assert found.codes == ({"L1"} if wrong else set())
    if wrong:
        assert dict(found[0].evidence)["outputs of two evaluations differ by"] > 0
    unchecked = {code for code, _ in found.unchecked}
    assert not unchecked & {"L8", "L30"}


def test_printed():
    found = thinned.check(leaky(), rows())
    text, (one,) = str(found), found
    assert one.file == __file__
    for part in (
        "L1 dropout-without-training",
        f"{one.file}:{one.line}",
        "at rate 0.4",
        "pass training=self.training",
    ):
        assert part in text
    assert RULES["L1"].url in text
    lstm = nn.LSTM(6, 4)
    lstm.dropout = 0.5  # given to the constructor, torch warns of it
    named = str(thinned.check(nn.Sequential(nn.Linear(10, 6), lstm), rows(), select="L11"))
    assert named.startswith("1: warning L11 recurrent-dropout-of-one-layer: LSTM has one layer")
    quiet = thinned.check(nn.Linear(10, 3), rows())
    assert str(quiet) == (
        "no known mistake found\n"
        "not checked: L13, L15, L29, L9 (print(findings.not_checked) says why)"
    )
    assert quiet.not_checked.splitlines() == [
        f"not checked: {what}: {why}" for what, why in quiet.unchecked
    ]
    both = Finding("L1", "m", site="net.drop", file="a.py", line=3, remedy="do this")
    assert str(Findings([both])).startswith("a.py:3 (net.drop): error L1 ")
    assert "-> do this  (" in str(Findings([both]))


def test_masks_on_two_ranks(tmp_path):
    script, arguments = (
        Path(__file__).with_name("masks_on_ranks.py"),
        ["2", str(tmp_path / "store"), str(tmp_path / "found")],
    )
    ranks(script, [[str(rank), *arguments] for rank in (0, 1)], tmp_path)
    for rank in (0, 1):
        findings = json.loads((tmp_path / f"found.{rank}").read_text())
        codes = {name: [f[:2] for f in found] for name, found in findings.items()}
        assert codes == {
            "one seed on all ranks": [["L9", "2"]],
            "another seed on each rank": [],
            "wrapped, another seed": [],
            "wrapped, one seed": [["L9", "2"]],
            "unseen draws": [],
            "one key, no ids": [["L9", "2"]],
            "one key, ids": [],
            "another key on each": [],
        }
        assert "on some of 2 ranks" in findings["one seed on all ranks"][0][2]
