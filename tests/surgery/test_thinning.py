"""``thin``: the smaller products equal the masked dense ones in results and gradients, and undo is
exact.
"""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch.nn import functional as TF

import thinned
from thinned import InputError, functional, nn, presets
from thinned.algebra import Linear
from thinned.functional import thinning

X = torch.randn(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
MAPS = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
TOKENS = torch.randn(4, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def mlp(p=(0.5, 0.3), bias=True):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(9, 13, bias),
        torch.nn.ReLU(),
        torch.nn.Dropout(p[0]),
        torch.nn.Linear(13, 11, bias),
        torch.nn.Sigmoid(),
        torch.nn.Dropout(p[1]),
        torch.nn.Tanh(),
        torch.nn.Linear(11, 3, bias),
    ).double()


def cnn():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 7, 3, padding=1, padding_mode="reflect"),
        torch.nn.ReLU(),
        torch.nn.Dropout2d(0.4),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(7, 5, 3, stride=2, bias=False),
        torch.nn.AvgPool2d(1),
        torch.nn.Dropout2d(0.5),
        torch.nn.Flatten(),
        torch.nn.ELU(),
        torch.nn.Linear(5, 4),
    ).double()


def first_only():
    """Dropout with nothing before it that could shrink."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.LayerNorm(9), torch.nn.Dropout(0.4), torch.nn.Linear(9, 4)
    ).double()


def tied():
    """One dropout layer in two places."""
    torch.manual_seed(0)
    drop = torch.nn.Dropout(0.5)
    return torch.nn.Sequential(
        torch.nn.Linear(9, 6),
        drop,
        torch.nn.Linear(6, 8),
        torch.nn.ReLU(),
        drop,
        torch.nn.Linear(8, 2),
    ).double()


class Written(torch.nn.Module):
    """A module with a forward of its own, with functions between the layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.drop, self.down = (
            torch.nn.Linear(8, 12),
            nn.Dropout(0.5),
            torch.nn.Linear(12, 8),
        )
        self.norm = torch.nn.LayerNorm(8)
        self.double()

    def forward(self, x):
        return x + self.down(self.drop(TF.gelu(self.up(self.norm(x)))))


def encoder(batch_first=True):
    torch.manual_seed(0)
    return torch.nn.TransformerEncoderLayer(8, 2, 12, 0.3, "gelu", batch_first=batch_first).double()


MODELS = {
    "mlp": (mlp, X),
    "no-bias": (lambda: mlp(bias=False), X),
    "tokens": (Written, TOKENS),
    "cnn": (cnn, MAPS),
    "first": (first_only, X),
    "tied": (tied, X),
    "one row": (mlp, X[:1]),
    "one example": (mlp, X[0]),
    "empty": (mlp, X[:0]),
    "transformer": (encoder, TOKENS),
    "one map": (lambda: cnn()[:6], MAPS[0]),
}


def unlinked(model):
    """The same layers on dense products: every unit is computed, and multiplied by the mask."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__dict__.pop("forward", None)
        if isinstance(module, nn.Thinned):
            module.linked = False
    return twin


def thin_only(model, groups=1):
    """Thin the model, and set the other dropout of a transformer to 0, which both twins draw."""
    edits = thinned.thin(model, groups, always=True)
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return edits


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_cut_products_equal_masked_dense_ones(name, groups):
    build, x = MODELS[name]
    model = build()
    thin_only(model, groups)
    dense = unlinked(model)
    inputs = x.clone().requires_grad_(), x.clone().requires_grad_()
    results = []
    for net, given in zip((model, dense), inputs, strict=True):
        key = thinned.key(net, seed=3)
        key.at(5)
        y = net(given)
        (y * torch.linspace(0.5, 2, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
        results.append(y)
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-12, atol=1e-12)
    dropped = 0
    for (which, seen), right in zip(model.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(
            seen.grad, right.grad, rtol=1e-11, atol=1e-12, msg=lambda m, n=which: f"{n}: {m}"
        )
        dropped += int(((right.grad == 0) & (seen.grad == 0)).sum())
    assert dropped or groups > 1  # a unit that any group keeps has a gradient


@pytest.mark.parametrize(("build", "x"), [(mlp, X), (cnn, MAPS), (tied, X), (encoder, TOKENS)])
def test_where_it_does_not_pay_the_same_units_are_zeroed(build, x):
    """These layers are narrow: by default nothing is left out, and the result is the same."""
    left_out, zeroed = build(), build()
    thin_only(left_out)
    thinned.thin(zeroed)
    for module in zeroed.modules():
        if type(module) is torch.nn.Dropout:
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
        if isinstance(module, nn.Thinned):
            assert not module.pays(len(x), len(x))
    results = []
    for model in (left_out, zeroed):
        key = thinned.key(model, seed=2)
        key.at(5)
        y = model(x)
        gradients = torch.autograd.grad(y.square().sum(), list(model.parameters()))
        results.append([y, *gradients])
    for seen, right in zip(*results, strict=True):
        torch.testing.assert_close(seen, right, rtol=1e-11, atol=1e-12)
    with pytest.raises(InputError, match="always has to be"):
        thinned.thin(build(), always=2)


def test_crossover_depends_on_width_rows_and_rate():
    """Wide layers and large batches pay; the same layer pays less at a lower rate."""
    assert thinning.pays(2048, 2832, 128, 0.5)
    assert not thinning.pays(256, 512, 32, 0.5)
    assert thinning.pays(256, 512, 512, 0.5)
    assert not thinning.pays(512, 1024, 32, 0.3)
    layer = nn.Thinned(0.5)
    assert layer.pays(4, 1)  # without a link there is nothing to compare
    layer.weights_per_unit = 8
    assert not layer.pays(4, 1)


def test_against_a_mask_written_out():
    """The oracle that shares no code: torch's operations with the pattern multiplied in."""
    model = mlp()
    names = [n for n, _ in model.named_parameters()]
    thinned.thin(model, always=True)
    key = thinned.key(model, seed=1)
    key.at(2)
    seen = model(X)
    seen.square().sum().backward()
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    widths, masks = (13, 11), []
    for place, n in zip((model[2], model[5]), widths, strict=True):
        key.at(2)
        rows = thinning.draw_patterns(n, place.p, place.call_key())
        mask = torch.zeros(n, dtype=torch.float64)
        mask[rows[0]] = n / round((1 - place.p) * n)
        masks.append(mask)
    w = dict(zip(names, model.parameters(), strict=True))
    h = TF.relu(X @ w["0.weight"].T + w["0.bias"]) * masks[0]
    h = torch.tanh(torch.sigmoid(h @ w["3.weight"].T + w["3.bias"]) * masks[1])
    y = h @ w["7.weight"].T + w["7.bias"]
    torch.testing.assert_close(seen, y, rtol=1e-12, atol=1e-12)
    for a, b in zip(got, torch.autograd.grad(y.square().sum(), model.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_every_pattern_is_as_likely_and_the_mean_is_exact():
    """Over all 10 patterns of 3 in 5 units the mean of what follows is the evaluation; draws are
    uniform over them.
    """
    w1, w2 = torch.randn(5, 9, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    every = [torch.tensor(c) for c in itertools.combinations(range(5), 3)]
    mean = sum(
        functional.thinned_linear(
            functional.thinned_linear(X, w1, None, None, kept).relu() * (5 / 3), w2, None, kept
        )
        for kept in every
    ) / len(every)
    torch.testing.assert_close(mean, (X @ w1.T).relu() @ w2.T, rtol=1e-12, atol=1e-12)
    torch.manual_seed(0)
    drawn = thinning.draw_patterns(5, 0.4, groups=20_000)
    counts = torch.unique(drawn, dim=0, return_counts=True)[1].double()
    assert len(counts) == 10
    assert (
        float(((counts - 2000) ** 2 / 2000).sum()) < 27.88
    )  # chi-square of 9 degrees of freedom, alpha = 0.001


def test_gradcheck():
    rows, columns = torch.tensor([0, 2]), torch.tensor([[1, 3, 4], [0, 1, 2]])
    args = [
        torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((4, 2, 3), (5, 6), (5,))
    ]

    def run(x, w, b):
        return functional.thinned_linear(x, w, b, columns, rows)

    assert torch.autograd.gradcheck(run, args)
    assert torch.autograd.gradgradcheck(run, args)


@pytest.mark.parametrize(
    ("n", "p", "count"),
    [
        (10, 0.0, 10),
        (10, 1.0, 0),
        (10, 0.99, 1),
        (2048, 0.3, 1440),
        (511, 0.3, 358),
        (512, 0.5, 256),
        (512, 0.1, 461),
        (640, 0.105, 576),
        (12, 0.01, 12),
        (0, 0.5, 0),
    ],
)
def test_counts(n, p, count):
    assert thinning.kept_count(n, p) == count


@pytest.mark.parametrize(("build", "x"), [(mlp, X), (cnn, MAPS), (first_only, X)])
def test_rates_zero_and_one(build, x):
    model, plain = build(), build().eval()
    thinned.thin(model, always=True)
    thinned.set_rate(model, 0.0)
    torch.testing.assert_close(model(x), plain(x))
    for module in model.modules():
        if isinstance(module, nn.Thinned):
            module.p = 1.0
    x = x.clone().requires_grad_()
    y = model(x)
    torch.testing.assert_close(y, model[-1].bias.expand_as(y))
    y.sum().backward()
    assert not x.grad.any()
    assert not any(
        p.grad is not None and p.grad.any()
        for n, p in model.named_parameters()
        if not n.startswith(f"{len(model) - 1}.")
    )
    bad = torch.full_like(x, float("inf"))
    assert model[2 if len(model) > 3 else 1](bad).eq(0).all()


def test_undo_names_and_optimizers():
    model = mlp()
    parameters, state, text = (
        dict(model.named_parameters()),
        copy.deepcopy(model.state_dict()),
        repr(model),
    )
    modules = list(model.modules())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    edits = thinned.thin(model, always=True)
    assert len(edits) == 5
    assert all(parameters[n] is p for n, p in model.named_parameters())
    assert model.state_dict().keys() == state.keys()
    assert len(thinned.thin(model)) == 0
    assert edits.edits[-1].new is model[7].forward
    before = model[3].weight.detach().clone()
    model(X).sum().backward()
    optimizer.step()
    dropped = model[3].weight.grad == 0
    assert dropped.any()
    assert torch.all(
        model[3].weight[dropped] != before[dropped]
    )  # decay moves dropped units, as the docstring says
    model.load_state_dict(state)
    torch.testing.assert_close(model.eval()(X), mlp().eval()(X), rtol=0, atol=0)
    edits.undo()
    assert repr(model) == text
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert not any("forward" in m.__dict__ for m in model.modules())


def test_keys_and_modes():
    model = mlp()
    thinned.thin(model, always=True)
    key = thinned.key(model, seed=3)
    assert key.layers == ("2", "5")
    key.at(1, samples=torch.arange(7))
    first = model(X)
    order = torch.randperm(7)
    key.at(1, samples=order)
    torch.testing.assert_close(
        model(X[order]), first[order]
    )  # the pattern is that of the batch, in any order
    key.at(1, samples=torch.arange(4))
    torch.testing.assert_close(model(X[:4]), first[:4])
    key.at(2)
    assert not torch.equal(model(X), first)
    model.eval()
    quiet = model(X)
    with thinned.sampling(model):
        key.at(1)
        torch.testing.assert_close(model(X), first)
    model.train()
    with thinned.off(model):
        torch.testing.assert_close(model(X), quiet)
    with thinned.recording(model) as tape:
        drawn = model(X)
    with thinned.replaying(model, tape):
        torch.testing.assert_close(model(X), drawn, rtol=0, atol=0)
    key.at(torch.tensor([1] * 7))
    with pytest.raises(InputError, match="needs one step"):
        model(X)


def test_linked_and_unlinked_draw_alike_without_a_key():
    model = mlp()
    thinned.thin(model, always=True)
    dense = unlinked(model)
    torch.manual_seed(4)
    seen = model(X)
    torch.manual_seed(4)
    torch.testing.assert_close(dense(X), seen, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("build", "x"), [(mlp, X), (cnn, MAPS), (Written, TOKENS)])
def test_compiled_in_one_graph(build, x):
    model = build()
    thinned.thin(model, always=True)
    key = thinned.key(model)
    torch._dynamo.reset()
    graphs = []

    def counted(graph, example):
        graphs.append(graph)
        return graph

    run = torch.compile(model, backend=counted, fullgraph=True)
    for step in (1, 2, 3):
        key.at(step)
        y = run(x)
        key.at(step)
        torch.testing.assert_close(y, model(x))
    assert len(graphs) == 1


def test_autocast_copies_and_checkpointing():
    model = mlp().float()
    thinned.thin(model, always=True)
    x = X.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype is torch.bfloat16
    y.float().sum().backward()
    assert all(
        p.grad.dtype is torch.float32 and p.grad.isfinite().all() for p in model.parameters()
    )
    assert (model[3].weight.grad == 0).any()
    key = thinned.key(model, seed=2)
    key.at(1)
    right = model(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert twin[0].forward.module is twin[0]
        assert twin[0].forward.behind is twin[2]
        thinned.key_of(twin).at(1)
        torch.testing.assert_close(twin(x), right)
    grads = []
    for reentrant in (None, True, False):
        model.zero_grad()
        key.at(1)
        given = x.clone().requires_grad_()
        y = (
            model(given)
            if reentrant is None
            else torch.utils.checkpoint.checkpoint(model, given, use_reentrant=reentrant)
        )
        y.square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(grads[1], grads[0])
    torch.testing.assert_close(grads[2], grads[0])


def test_transformer_in_evaluation_takes_its_fused_path_and_samples_on_request():
    model, plain = encoder().float(), encoder().float()
    thin_only(model)
    x = TOKENS.float()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), plain.eval()(x))
        with thinned.sampling(model):
            assert not torch.equal(model(x), model(x))
    stack = torch.nn.TransformerEncoder(encoder(), 2)
    assert (
        sum(isinstance(e.new, nn.Thinned) for e in thinned.thin(stack).edits if hasattr(e, "child"))
        == 2
    )


def test_schedules_and_notes_on_what_is_left():
    model = torch.nn.Sequential(
        torch.nn.Linear(9, 10), nn.Dropout(Linear(0.0, 0.6, 10)), torch.nn.Linear(10, 2)
    )
    thinned.thin(model, always=True)
    thinned.step(model, 10)
    assert model[1].p == pytest.approx(0.6)
    model(X.float()).sum().backward()
    assert int((model[2].weight.grad[0] != 0).sum()) == 4
    mixed = torch.nn.Sequential(*mlp(), torch.nn.Dropout(0.2))
    edits = thinned.thin(mixed)
    assert edits.notes == ("8: left as it is: no layer follows it; its result leaves the module",)
    assert "8: left as it is" in repr(edits)
    again = thinned.thin(mixed)
    assert (len(again), again.notes) == (0, edits.notes)
    sites = thinned.find(mixed, X)
    assert [(s.name, s.function, s.measured) for s in sites[:2]] == [
        ("2", "Thinned", 7 / 13),
        ("5", "Thinned", 3 / 11),
    ]


def test_recurrent_networks_are_named():
    model = torch.nn.ModuleList([mlp(), torch.nn.LSTM(3, 4, 2, dropout=0.5)])
    (note,) = thinned.thin(model).notes
    assert note.startswith("1: left as it is")
    assert "method='thinned'" in note


def test_layers_of_thinned_are_replaced_too():
    """Batchwise dropout on units, and channel dropout of a given rank."""
    torch.manual_seed(0)
    units = torch.nn.Sequential(
        torch.nn.Linear(9, 10), nn.BatchwiseDropout(0.5), torch.nn.Linear(10, 2)
    )
    assert len(thinned.thin(units)) == 3
    assert isinstance(units[1], nn.Thinned)
    maps = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), torch.nn.Conv2d(4, 4, 3)
    )
    assert len(thinned.thin(maps)) == 3
    assert maps[1].dims == 2


class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.drop, self.two = (
            torch.nn.Linear(4, 4),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(4, 4),
        )

    def forward(self, x):
        return self.two(self.drop(self.two(x)))


class Branching(Twice):
    def forward(self, x):
        h = self.drop(self.one(x))
        return self.two(h) + h


class Added(Twice):
    def forward(self, x):
        return self.two(x + self.drop(self.one(x)))


class Looping(Twice):
    def forward(self, x):
        return self.two(self.drop(self.one(x))) if x.sum() > 0 else x


SEQUENTIAL = torch.nn.Sequential
L, D = torch.nn.Linear(4, 4), torch.nn.Dropout(0.5)
REFUSED = [
    (lambda: SEQUENTIAL(L), "has no dropout layer"),
    (
        lambda: SEQUENTIAL(L, torch.nn.Dropout(0.5), torch.nn.Sigmoid(), torch.nn.Linear(4, 4)),
        r"1: .*Sigmoid.* is not 0 at 0",
    ),
    (
        lambda: SEQUENTIAL(L, torch.nn.Dropout(0.5), torch.nn.LayerNorm(4), torch.nn.Linear(4, 4)),
        "LayerNorm.* follows it",
    ),
    (
        lambda: SEQUENTIAL(L, torch.nn.Dropout(0.5), torch.nn.Softmax(-1), torch.nn.Linear(4, 4)),
        "Softmax.* follows it",
    ),
    (lambda: SEQUENTIAL(L, torch.nn.Dropout(0.5)), "its result leaves the module"),
    (
        lambda: SEQUENTIAL(L, torch.nn.Dropout(0.5), L),
        "2 is called in several places|0 is called in several places",
    ),
    (
        lambda: SEQUENTIAL(L, nn.GaussianDropout(p=0.5), torch.nn.Linear(4, 4)),
        "does not drop single units",
    ),
    (
        lambda: SEQUENTIAL(L, torch.nn.AlphaDropout(0.5), torch.nn.Linear(4, 4)),
        "AlphaDropout is not a dropout layer that thinning can replace",
    ),
    (
        lambda: SEQUENTIAL(
            L, nn.SpecDropout(presets.dropout(0.5, "classic")), torch.nn.Linear(4, 4)
        ),
        "rescale",
    ),
    (
        lambda: SEQUENTIAL(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout(0.5), torch.nn.Conv2d(4, 4, 3)
        ),
        "channels are dropped by Dropout2d",
    ),
    (
        lambda: SEQUENTIAL(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout2d(0.5), torch.nn.Conv2d(4, 4, 3, groups=2)
        ),
        "Conv2d.* follows it",
    ),
    (
        lambda: SEQUENTIAL(
            torch.nn.BatchNorm2d(3),
            torch.nn.Dropout2d(),
            torch.nn.Flatten(),
            torch.nn.Linear(12, 4),
        ),
        "is not seen",
    ),
    (Twice, "two is called in several places"),
    (Branching, "used in several places"),
    (Added, "is added to something else"),
    (Looping, "caller's forward pass cannot be read"),
]


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_refused_with_the_reason(build, message):
    model = build()
    before = repr(model)
    with pytest.raises(InputError, match=message):
        thinned.thin(model)
    assert repr(model) == before
    assert not any("forward" in m.__dict__ for m in model.modules())


def test_refusals_of_numbers_and_of_models_changed_since():
    with pytest.raises(InputError, match="groups has to be at least 1"):
        thinned.thin(mlp(), 0)
    with pytest.raises(InputError, match="first axis, which holds tokens"):
        thinned.thin(encoder(batch_first=False), 2)
    with pytest.raises(InputError, match="between 0 and 1"):
        nn.Thinned(1.5)
    with pytest.raises(InputError, match="kept units in its last axis"):
        functional.thinned_linear(X, torch.ones(3, 9, dtype=X.dtype), None, torch.tensor([0]))
    model = mlp()
    thinned.thin(model, always=True)
    model[2] = torch.nn.Identity()
    with pytest.raises(InputError, match="did not run"):
        model(X)
    model = mlp()
    thinned.thin(model, always=True)
    model[0] = torch.nn.Linear(
        9, 13
    ).double()  # nothing before it shrinks any more, and what is behind still may
    model(X).sum().backward()
    assert (model[3].weight.grad == 0).any()


class Remembers(torch.nn.Module):
    """Keeps what it saw, in attributes, containers and buffers, and counts its passes."""

    def __init__(self):
        super().__init__()
        self.first, self.drop = torch.nn.Linear(9, 16), torch.nn.Dropout(0.5)
        self.last, self.hidden, self.seen = torch.nn.Linear(16, 3), None, []
        self.config = {"passes": 0}
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count += 1
        self.hidden = self.first(x).relu()
        self.seen.append(self.hidden)
        self.config["last"] = x
        self.config["passes"] += 1
        return self.last(self.drop(self.hidden))


@pytest.mark.parametrize("change", ["thin", "rescale"])
def test_reading_a_forward_leaves_no_trace(change, tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(Remembers()).double()
    part = model[0]
    model(X)
    hidden, before = part.hidden, copy.deepcopy(part.count)
    passes = dict(part.config)
    seen = list(part.seen)
    if change == "thin":
        edits = thinned.thin(model)
        assert part.first.forward.behind is part.drop
    else:
        thinned.replace(model)
        edits = thinned.rescale(model, "classic")
    assert part.hidden is hidden
    assert torch.equal(part.count, before)
    assert part.config == passes
    assert [id(t) for t in part.seen] == [id(t) for t in seen]
    part.hidden, part.seen[:], part.config = None, [], {"passes": 1}  # non-leaf tensors
    edits.undo()
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False).eval()
    assert torch.equal(again(X), model.eval()(X))
