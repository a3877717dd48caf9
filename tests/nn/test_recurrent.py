"""DropState against torch's own networks, against readable loops at fixed masks, and by enumeration
of all masks.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Drop, Linear
from thinned.algebra.law import Bernoulli
from thinned.functional import core, fold_in, recurrent
from thinned.functional.recurrent import StateFactors
from thinned.functional.thinning import draw_patterns

from ..tensor_kinds import of_kind

T, B, D, H, P = 5, 3, 6, 4, 0.4
DTYPE = torch.float64
X = torch.randn(T, B, D, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
KINDS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
METHODS = [
    ("variational", "lstm"),
    ("variational", "gru"),
    ("variational", "rnn"),
    ("recurrent", "lstm"),
    ("recurrent", "gru"),
]
METHODS += [("rnndrop", "lstm"), ("zoneout", "lstm"), ("zoneout", "gru"), ("zoneout", "rnn")]


def plain(kind="lstm", **settings):
    torch.manual_seed(0)
    return KINDS[kind](D, H, **settings).to(DTYPE)


def keyed(net, seed=3, **rates):
    """(DropState in a keyed model, the key of its draws at step 0)."""
    model = torch.nn.Sequential(nn.DropState(net, **rates))
    key = thinned.key(model, seed)
    key.at(0)
    return model[0], key.tensor_key()._replace(stream=model[0].stream)


def start(net, batch=B):
    """A random initial state as ``net`` takes it."""
    shape = (net.num_layers * (2 if net.bidirectional else 1), batch, H)
    h, c = torch.randn(2, *shape, dtype=DTYPE, generator=torch.Generator().manual_seed(2))
    return (h, c) if isinstance(net, torch.nn.LSTM) else h


def leaves(result):
    y, state = result
    return [y, *(state if isinstance(state, tuple) else (state,))]


def assert_same(ours, theirs):
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


SHAPES = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True, "batch_first": True},
    {"batch_first": True},
    {"bias": False},
    {"num_layers": 2, "bias": False, "bidirectional": True},
]


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "relu"])
def test_the_loop_is_torchs_network(kind, shape, given, unbatched):
    """Results, last states and gradients of the loop over steps with no noise in it."""
    net = plain("rnn", nonlinearity="relu", **shape) if kind == "relu" else plain(kind, **shape)
    x = X.transpose(0, 1) if net.batch_first else X
    state = start(net) if given else None
    if unbatched:
        x = X[:, 0]
        state = (
            (state[0][:, 0], state[1][:, 0])
            if isinstance(state, tuple)
            else state
            if state is None
            else state[:, 0]
        )
    x = x.clone().requires_grad_()
    wrapped = nn.DropState(net, states=0.5, method="zoneout")
    wrapped._current_rates = lambda sampling: {"states": 0.0}  # the loop, at a rate of 0
    grads = []
    for run in (wrapped, net):
        out = leaves(run(x, state))
        grads.append(
            torch.autograd.grad(sum(t.square().sum() for t in out), [x, *net.parameters()])
        )
    assert_same(wrapped(x, state), net(x, state))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_without_rates_and_in_evaluation_it_is_torchs_own_result(kind):
    net = plain(kind, num_layers=2, bidirectional=True)
    state = start(net)
    assert all(
        torch.equal(a, b)
        for a, b in zip(leaves(nn.DropState(net)(X, state)), leaves(net(X, state)), strict=True)
    )
    wrapped = nn.DropState(
        net, inputs=0.3, between=0.3, outputs=0.3, weights=0.3, states=0.3
    ).eval()
    assert_same(wrapped(X, state), net(X, state))
    assert not torch.allclose(wrapped.train()(X)[0], net(X)[0])


def test_parameters_keep_their_names_and_checkpoints_load_both_ways():
    net, other = (
        plain(num_layers=2, bidirectional=True),
        KINDS["lstm"](D, H, 2, bidirectional=True).to(DTYPE),
    )
    wrapped = nn.DropState(net, weights=0.5)
    assert list(wrapped.state_dict()) == list(net.state_dict())
    assert [m for m in wrapped.modules() if m is not wrapped] == []
    assert wrapped.weight_hh_l0 is net.weight_hh_l0
    other.load_state_dict(wrapped.state_dict())
    assert torch.equal(other(X)[0], net(X)[0])
    nn.DropState(KINDS["lstm"](D, H, 2, bidirectional=True)).load_state_dict(net.state_dict())


def masks(method, kind, tensor_key, **settings):
    """The 0/1 masks [t, b, h] of the first layer in its first direction, drawn by their definition:
    (states, cells).
    """
    per = (
        "t b d"
        if method == "zoneout" or (method == "recurrent" and settings.get("per") != "sequence")
        else "b d"
    )
    drawn = (
        core.bernoulli_mask((T, B, H), P, core.fold_in(tensor_key, 3), X, per, "t b d")
        .to(DTYPE)
        .expand(T, B, H)
    )
    return drawn, core.bernoulli_mask(
        (T, B, H), P, core.fold_in(tensor_key, 5), X, "t b d", "t b d"
    ).to(DTYPE)


def readable(net, x, h, c, method, m, mc, gain):
    """One layer under masks, unit by unit as the papers write it."""
    w, u, b, d = (getattr(net, f"{n}_l0") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    ys = []
    for t in range(T):
        seen = h * m[t] * gain if method == "variational" else h
        mean = m[t] * gain if method == "recurrent" else 1.0
        if isinstance(net, torch.nn.LSTM):
            i, f, g, o = (x[t] @ w.T + b + seen @ u.T + d).chunk(4, -1)
            new_c = torch.sigmoid(f) * c + mean * torch.sigmoid(i) * torch.tanh(g)
            new_c = m[t] * new_c if method == "rnndrop" else new_c
            new_h = torch.sigmoid(o) * torch.tanh(new_c)
        elif isinstance(net, torch.nn.GRU):
            (rx, zx, nx), (rh, zh, nh) = (
                (x[t] @ w.T + b).chunk(3, -1),
                (seen @ u.T + d).chunk(3, -1),
            )
            r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
            new_h, new_c = z * h + (1 - z) * mean * torch.tanh(nx + r * nh), c
        else:
            new_h, new_c = torch.tanh(x[t] @ w.T + b + seen @ u.T + d), c
        zones = method == "zoneout"
        h = torch.where(m[t] == 1, new_h, h) if zones else new_h
        c = torch.where(mc[t] == 1, new_c, c) if zones else new_c
        ys.append(h)
    return torch.stack(ys), (h.unsqueeze(0), c.unsqueeze(0)) if isinstance(
        net, torch.nn.LSTM
    ) else h.unsqueeze(0)


def choices(method):
    """The settings that have a meaning for ``method``."""
    scaled = (
        [{"scale": "inverted"}, {"scale": "classic"}]
        if method in ("variational", "recurrent")
        else []
    )
    return [{}, *scaled, *([{"per": "sequence"}] if method == "recurrent" else [])]


@pytest.mark.parametrize(
    ("method", "kind", "settings"), [(m, k, s) for m, k in METHODS for s in choices(m)], ids=str
)
def test_at_fixed_masks_it_is_a_readable_loop(method, kind, settings):
    inverted = (
        settings.get("scale", "inverted" if method == "variational" else "classic") == "inverted"
    )
    net = plain(kind)
    wrapped, tensor_key = keyed(net, states=P, method=method, **settings)
    state = start(net)
    h, c = state if isinstance(state, tuple) else (state, state)
    m, mc = masks(method, kind, tensor_key, **settings)
    assert 0 < m.mean() < 1
    expected = readable(net, X, h[0], c[0], method, m, mc, 1 / (1 - P) if inverted else 1.0)
    assert_same(wrapped(X, state), expected)
    wrapped.eval()
    kept = torch.full((T, B, H), 1 - P, dtype=DTYPE)
    if method == "zoneout":
        return  # its mean is enumerated below
    one = torch.ones_like(kept) if inverted else kept
    assert_same(wrapped(X, state), readable(net, X, h[0], c[0], method, one, one, 1.0))


def test_untied_gates_have_masks_of_their_own():
    for kind, gates in (("lstm", 4), ("gru", 3)):
        net = plain(kind)
        wrapped, tensor_key = keyed(net, states=P, tied=False)
        m = core.bernoulli_mask(
            (gates, B, H), P, core.fold_in(tensor_key, 3), X, "g b d", "g b d"
        ).to(DTYPE) / (1 - P)
        state = start(net)
        h = state[0][0] if kind == "lstm" else state[0]
        products = [(h * m[g]) @ net.weight_hh_l0[g * H : (g + 1) * H].T for g in range(gates)]
        twin = plain(kind)
        with torch.no_grad():  # one step: the products can be given as a bias of each example
            twin.weight_hh_l0.zero_()
        rows = []
        for n in range(B):
            with torch.no_grad():
                twin.bias_hh_l0.copy_(net.bias_hh_l0 + torch.cat([q[n] for q in products]))
            one = tuple(s[:, n : n + 1] for s in state) if kind == "lstm" else state[:, n : n + 1]
            rows.append(twin(X[:1, n : n + 1], one)[0])
        torch.testing.assert_close(wrapped(X[:1], state)[0], torch.cat(rows, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_locked_places_are_one_mask_for_all_steps(kind):
    net = plain(kind, num_layers=2)
    first, second = KINDS[kind](D, H).to(DTYPE), KINDS[kind](H, H).to(DTYPE)
    first.load_state_dict({n: p for n, p in net.state_dict().items() if n.endswith("l0")})
    second.load_state_dict(
        {n.replace("l1", "l0"): p for n, p in net.state_dict().items() if n.endswith("l1")}
    )
    wrapped, tensor_key = keyed(net, inputs=0.3, between=0.4, outputs=0.5)

    def lock(x, p, n):
        return F.drop(x, Drop(Bernoulli(p), per="b d", of="t b d"), key=core.fold_in(tensor_key, n))

    middle, end = first(lock(X, 0.3, 0))
    last, ends = second(lock(middle, 0.4, 7))
    y, state = wrapped(X)
    torch.testing.assert_close(y, lock(last, 0.5, 14))
    for ours, *theirs in zip(
        leaves((y, state))[1:], leaves((y, end))[1:], leaves((y, ends))[1:], strict=True
    ):
        torch.testing.assert_close(ours, torch.cat(theirs))  # the states are not dropped


def test_for_one_step_locked_dropout_is_dropout():
    net = plain()
    wrapped, tensor_key = keyed(net, inputs=0.5)
    torch.testing.assert_close(
        wrapped(X[:1])[0], net(F.drop(X[0], presets.dropout(0.5), key=tensor_key)[None])[0]
    )


def test_masks_belong_to_examples_and_do_not_depend_on_the_length():
    for settings in (
        {"states": 0.5},
        {"states": 0.5, "method": "zoneout"},
        {"inputs": 0.5, "outputs": 0.5, "weights": 0.5},
    ):
        wrapped, _ = keyed(plain(batch_first=True), **settings)
        wrapped.model_key.at(1, samples=[7, 8, 9])
        whole = wrapped(X.transpose(0, 1))[0]
        wrapped.model_key.at(1, samples=[9])
        torch.testing.assert_close(wrapped(X.transpose(0, 1)[2:, :3])[0], whole[2:, :3])


@pytest.mark.parametrize("kind", KINDS)
def test_weight_drop(kind):
    """Merity's own check: with no initial state the first step cannot depend on the mask, the
    second does.
    """
    net = plain(kind, num_layers=2, bidirectional=True)
    one_way = plain(kind)
    wrapped = nn.DropState(one_way, weights=0.5)
    before = one_way.weight_hh_l0.detach().clone()
    a, b = wrapped(X)[0], wrapped(X)[0]
    assert torch.equal(a[0], b[0])
    assert not torch.isclose(a[1], b[1]).all()
    assert torch.equal(one_way.weight_hh_l0, before)
    wrapped, tensor_key = keyed(net, weights=P)
    twin = plain(kind, num_layers=2, bidirectional=True)
    kept = {}
    for layer, way in itertools.product(range(2), range(2)):
        name = f"weight_hh_l{layer}{'_reverse' if way else ''}"
        weight = getattr(twin, name)
        mask = Drop(Bernoulli(P), per="o i", of="o i")
        kept[name] = F.mask(
            mask, tuple(weight.shape), core.fold_in(tensor_key, 7 * layer + 1 + way)
        ).to(DTYPE) / (1 - P)
        with torch.no_grad():
            weight.mul_(kept[name])
    y, expected = wrapped(X)[0], twin(X)[0]
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for name, mask in kept.items():
        torch.testing.assert_close(getattr(net, name).grad, getattr(twin, name).grad * mask)
    assert len({tuple(m.flatten().tolist()) for m in kept.values()}) == 4  # masks of their own


def remembering():
    """An LSTM that only remembers: its forget gates are 1 and its input gates 0."""
    net = plain()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.bias_ih_l0[:H], net.bias_ih_l0[H : 2 * H] = -1000.0, 1000.0
    return net


def test_what_is_remembered_stays_under_recurrent_dropout_and_fades_under_rnndrop():
    """30 steps: 1 where the candidate is dropped; 0.75^30 = 1.8e-4 in evaluation for the memory."""
    c, x = torch.ones(1, 2, H, dtype=DTYPE), torch.zeros(30, 2, D, dtype=DTYPE)
    for training in (True, False):
        wrapped = nn.DropState(remembering(), states=0.25, method="recurrent").train(training)
        assert torch.equal(wrapped(x, (c, c))[1][1], c)
    wrapped, tensor_key = keyed(remembering(), states=0.25, method="rnndrop")
    kept = core.bernoulli_mask((30, 2, H), 0.25, core.fold_in(tensor_key, 3), x, "b d", "t b d").to(
        DTYPE
    )
    assert torch.equal(wrapped(x, (c, c))[1][1], kept)  # for the whole sequence, or not at all
    faded = wrapped.eval()(x, (c, c))[1][1]
    torch.testing.assert_close(faded, c * 0.75**30)
    assert 1.7e-4 < faded.max() < 1.8e-4


def test_zoneout_freezes_at_one():
    for kind in KINDS:
        net = plain(kind)
        state = start(net)
        for training in (True, False):
            y, end = nn.DropState(net, states=1.0, method="zoneout").train(training)(X, state)
            assert all(
                torch.equal(a, b)
                for a, b in zip(leaves((y, end))[1:], leaves((y, state))[1:], strict=True)
            )
            assert torch.equal(y, leaves((y, state))[1].expand(T, B, H))


def test_zoneout_has_rates_of_its_own_for_cells():
    net = plain()
    h, c = start(net)
    _, (_, frozen) = nn.DropState(net, states=0.0, cells=1.0, method="zoneout")(X, (h, c))
    assert torch.equal(frozen, c)
    _, (end, moved) = nn.DropState(net, states=1.0, cells=0.0, method="zoneout")(X, (h, c))
    assert torch.equal(end, h)
    assert not torch.isclose(moved, c).any()
    assert nn.DropState(net, states=0.05, method="zoneout").cells == 0.05


@pytest.mark.parametrize(
    ("method", "place"), [("zoneout", "update"), ("recurrent", "candidate"), ("rnndrop", "cell")]
)
def test_the_mean_of_one_step_is_evaluation(method, place):
    """Over all 2^2 masks (zoneout: 2^4, of h and of c): E of the memory; for zoneout of the state
    as well.
    """
    net, p = torch.nn.LSTM(D, 2).to(DTYPE), 0.3
    h, c = torch.randn(2, 1, 2, dtype=DTYPE)
    zones = method == "zoneout"
    bits = 4 if zones else 2
    means = [torch.zeros(1, 2, dtype=DTYPE) for _ in range(2)]
    for bernoulli_mask in itertools.product((0.0, 1.0), repeat=bits):
        m = torch.tensor(bernoulli_mask, dtype=DTYPE).view(-1, 1, 2)
        noise = (
            StateFactors(update=m[:1], cell_update=m[1:])
            if zones
            else StateFactors(**{place: m[0]})
        )
        _, ends = recurrent._loop("lstm", X[:1, :1], (h, c), list(net.parameters()), noise)
        weight = math.prod(1 - p if draw else p for draw in bernoulli_mask)
        means = [mean + weight * end for mean, end in zip(means, ends, strict=True)]
    _, ends = nn.DropState(net, states=p, method=method).eval()(X[:1, :1], (h[None], c[None]))
    torch.testing.assert_close(means[1], ends[1][0])
    if zones:
        torch.testing.assert_close(means[0], ends[0][0])


def test_measured_rates():
    """Fractions of dropped units against their rates, alpha 1e-6 each."""
    n = 4000
    net = torch.nn.RNN(1, 16, nonlinearity="relu")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.bias_ih_l0.fill_(1.0)
    x = torch.zeros(2, n // 16, 1)
    y, _ = keyed(net, outputs=0.3)[0](x)
    assert torch.equal(y[0], y[1])
    y, _ = keyed(net, states=0.3, method="zoneout")[0](x)  # from 0 to 1, where it moves
    dropped = [
        (keyed(net, outputs=0.3)[0](x)[0][0] == 0).float().mean(),
        (y[0] == 0).float().mean(),
    ]
    assert all(abs(f - 0.3) < 4.9 * math.sqrt(0.21 / n) for f in dropped)
    assert abs((y[1] == 0).float().mean() - 0.09) < 4.9 * math.sqrt(
        0.09 * 0.91 / n
    )  # two steps, two draws


# What published weight-drop code gets wrong: the two recipes in their smallest form, against the
# definition.


def test_assigning_a_dropped_weight_fails_and_leaves_it_behind():
    net, state = plain(), start(plain())
    right = net(X, state)[0].detach()
    with pytest.raises(TypeError, match="cannot assign"):
        net.weight_hh_l0 = torch.nn.functional.dropout(net.weight_hh_l0, 0.9)
    assert torch.equal(net.weight_hh_l0, plain().weight_hh_l0)
    assert not torch.isclose(
        net.eval()(X, state)[0], right
    ).all()  # yet it runs with what it refused, in evaluation too
    ours = nn.DropState(plain(), weights=0.9)
    assert not torch.isclose(ours(X, state)[0], right).all()
    torch.testing.assert_close(ours.eval()(X, state)[0], right)


def test_a_dropped_weight_as_a_parameter_learns_nothing():
    net = plain()
    true = net.weight_hh_l0
    net.weight_hh_l0 = torch.nn.Parameter(torch.nn.functional.dropout(true, 0.5))
    net(X)[0].sum().backward()
    assert true.grad is None
    ours = nn.DropState(plain(), weights=0.5)
    ours(X)[0].sum().backward()
    assert ours.weight_hh_l0.grad.any()


def test_writing_the_dropped_weight_back_decays_to_nothing():
    wrong, net = plain(), plain()
    ours = nn.DropState(net, weights=0.5)
    kept = []
    for _ in range(20):
        with torch.no_grad():
            wrong.weight_hh_l0.copy_(torch.nn.functional.dropout(wrong.weight_hh_l0, 0.5))
        wrong(X)
        ours(X)
        kept.append(int((wrong.weight_hh_l0 != 0).sum()))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] <= 1  # 64 weights, each there with probability 2^-20
    assert torch.equal(net.weight_hh_l0, plain().weight_hh_l0)


def test_rates_are_read_set_and_scheduled():
    wrapped = nn.DropState(plain(num_layers=2), inputs=0.2, weights=Linear(0.0, 0.8, 4), states=0.4)
    assert (wrapped.inputs, wrapped.between, wrapped.weights, wrapped.states, wrapped.p) == (
        0.2,
        0.0,
        0.0,
        0.4,
        0.4,
    )
    thinned.step(wrapped, 2)
    assert wrapped.weights == pytest.approx(0.4)
    wrapped.p = 0.0
    assert torch.equal(wrapped(X)[0], plain(num_layers=2)(X)[0])
    wrapped.p = 0.5
    assert (wrapped.inputs, wrapped.between, wrapped.weights, wrapped.states) == (
        0.5,
        0.0,
        0.5,
        0.5,
    )
    wrapped.outputs = 1.0
    assert not wrapped(X)[0].any()
    taken = nn.DropState(plain(num_layers=2, dropout=0.3))
    assert taken.between == 0.3
    assert nn.DropState(plain(num_layers=2, dropout=0.3), between=0.0).p == 0.0
    assert repr(taken) == "DropState(lstm, 6, 4, num_layers=2, between=0.3)"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_schedule_never_recompiles():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    rate, first = Linear(0.0, 0.9, 4), 0
    model = torch.nn.Sequential(
        nn.DropState(torch.nn.GRU(D, H), inputs=rate, weights=rate, states=rate, method="recurrent")
    )
    key = thinned.key(model)
    run = torch.compile(model, backend=counter, fullgraph=True)
    for step in range(6):
        key.at(step)
        y = run(X.float())[0]
        key.at(step)
        torch.testing.assert_close(y, model(X.float())[0])
        first = counter.frame_count if step == 0 else first
    assert counter.frame_count == first


def normed():
    return torch.nn.utils.parametrizations.weight_norm(plain(), "weight_hh_l0")


@pytest.mark.filterwarnings("ignore:dropout option adds dropout")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.DropState(torch.nn.Linear(2, 2)),
            "needs a torch.nn.LSTM, GRU or RNN, but got Linear",
        ),
        (lambda: nn.DropState(torch.nn.LSTMCell(2, 2)), "but got LSTMCell"),
        (lambda: nn.DropState(normed()), "but got ParametrizedLSTM"),
        (
            lambda: nn.DropState(plain(dropout=0.5)),
            "between=0.5 drops what goes from layer to layer, but the module has one",
        ),
        (lambda: nn.DropState(plain(), between=0.5), "write outputs=0.5"),
        (
            lambda: nn.DropState(plain(), states=1.5),
            "the rate of states has to be between 0 and 1, but got 1.5",
        ),
        (
            lambda: nn.DropState(plain(), states=0.5, method="zonout"),
            "unknown method 'zonout'; did you mean 'zoneout'",
        ),
        (
            lambda: nn.DropState(plain("gru"), states=0.5, method="rnndrop"),
            "acts on the memory of LSTM, but got GRU",
        ),
        (
            lambda: nn.DropState(plain("rnn"), states=0.5, method="recurrent"),
            "memory of LSTM or GRU, but got RNN",
        ),
        (
            lambda: nn.DropState(plain(), cells=0.5),
            "cells is the zoneout rate of the cells of an LSTM",
        ),
        (
            lambda: nn.DropState(plain("gru"), cells=0.5, method="zoneout"),
            "cells is the zoneout rate of the cells of an LSTM",
        ),
        (
            lambda: nn.DropState(plain(), states=0.5, per="step"),
            "per is for method='recurrent' only",
        ),
        (lambda: nn.DropState(plain(), method="recurrent", per="batch"), "unknown per 'batch'"),
        (
            lambda: nn.DropState(plain(), method="rnndrop", scale="inverted"),
            "takes scale 'classic', but got 'inverted'",
        ),
        (
            lambda: nn.DropState(plain(), method="recurrent", tied=False),
            "tied=False is for the gates",
        ),
        (
            lambda: nn.DropState(plain())((X, None)),
            r"DropState\(\): argument 'input' must be Tensor, not tuple; call it with each tensor",
        ),
        (
            lambda: nn.DropState(plain())(of_kind("jagged")),
            "argument 'input' must be a dense tensor, but got a nested tensor",
        ),
        (
            lambda: nn.DropState(plain())(X, (of_kind("csr"), of_kind("csr"))),
            "argument 'state' must be a dense tensor, but got layout torch.sparse_csr",
        ),
        (
            lambda: nn.DropState(torch.nn.LSTM(D, H, proj_size=2).to(DTYPE))(X, start(plain())),
            r"of shapes \[1, 3, 2\] and \[1, 3, 4\], but got \[\[1, 3, 4\], \[1, 3, 4\]\]",
        ),
        (
            lambda: nn.DropState(plain())(X[0, 0]),
            r"needs an input \[t, b, d\] or \[t, d\] with d = 6, but got \[6\]",
        ),
        (
            lambda: nn.DropState(plain(batch_first=True))(X[..., :2]),
            r"\[b, t, d\] or .* but got \[5, 3, 2\]",
        ),
        (lambda: nn.DropState(plain())(X[:0]), "at least one step"),
        (
            lambda: nn.DropState(plain())(X, start(plain(), 2)),
            r"each of shape \[1, 3, 4\], but got \[\[1, 2, 4\], \[1, 2, 4\]\]",
        ),
        (lambda: nn.DropState(plain())(X, start(plain())[0]), r"has to be \(h, c\), each of shape"),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_ids_name_each_example():
    wrapped, _ = keyed(plain(), inputs=0.5)
    wrapped.model_key.at(0, samples=[1, 2])
    with pytest.raises(InputError, match="each of the 3 examples on axis 1, but got 2 ids"):
        wrapped(X)


def test_the_written_backward_has_the_gradients_of_the_readable_loop(monkeypatch):
    """Every method: first and second derivatives of the layer with its own backward, against
    autograd through the loop.
    """
    from thinned.functional import lstm

    for rates in (
        {"states": 0.4},
        {"states": 0.4, "method": "recurrent"},
        {"states": 0.3, "method": "rnndrop"},
        {"states": 0.3, "cells": 0.6, "method": "zoneout"},
        {"states": 0.4, "weights": 0.5, "inputs": 0.2},
    ):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            nn.DropState(torch.nn.LSTM(3, 4, bidirectional=True), **rates)
        ).double()
        key, x = (
            thinned.key(model, seed=1),
            torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True),
        )
        seen = []
        for is_supported in (lstm.is_supported, lambda *_: False):
            monkeypatch.setattr(lstm, "is_supported", is_supported)
            key.at(0)
            y, (h, c) = model(x)
            total = y.sin().sum() + h.cos().sum() + c.square().sum()
            first = torch.autograd.grad(total, [x, *model.parameters()], create_graph=True)
            second = torch.autograd.grad(
                sum(g.square().sum() for g in first), [x, *model.parameters()]
            )
            seen.append([y, h, c, *first, *second])
            monkeypatch.undo()
        for ours, right in zip(*seen, strict=True):
            torch.testing.assert_close(ours, right)


# Packed sequences and projections.

LENGTHS = [2, 5, 4]  # not in order, so that packing moves the examples
NETWORKS = [*KINDS, "relu", "projected"]


def network(kind, **settings):
    if kind == "projected":
        return plain("lstm", proj_size=3, **settings)
    if kind == "relu":
        return plain("rnn", nonlinearity="relu", **settings)
    return plain(kind, **settings)


def states_of(net, batch=B):
    """A random initial state with the sizes that ``net`` takes."""
    stacked = net.num_layers * (2 if net.bidirectional else 1)
    generator = torch.Generator().manual_seed(2)
    h = torch.randn(stacked, batch, net.proj_size or H, dtype=DTYPE, generator=generator)
    c = torch.randn(stacked, batch, H, dtype=DTYPE, generator=generator)
    return (h, c) if isinstance(net, torch.nn.LSTM) else h


def pack(x=X, lengths=LENGTHS, batch_first=False, in_order=False):
    x = x.transpose(0, 1) if batch_first else x
    return torch.nn.utils.rnn.pack_padded_sequence(
        x, lengths, batch_first=batch_first, enforce_sorted=in_order
    )


def unpacked(result):
    """The tensors of a result, and the batch sizes and orders of its packed sequence."""
    y, state = result
    rest = [t for t in (y.batch_sizes, y.sorted_indices, y.unsorted_indices) if t is not None]
    return [y.data, *(state if isinstance(state, tuple) else (state,)), *rest]


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], SHAPES[6]], ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_packed_sequences_give_torchs_result(kind, shape, given, in_order, looped):
    """Without noise, by torch's kernels and by the loop: results, orders and gradients."""
    net = network(kind, **shape)
    state = states_of(net) if given else None
    wrapped = nn.DropState(net, inputs=0.4, states=0.5, method="zoneout")
    if looped:  # at a rate of 0
        wrapped._current_rates = lambda sampling: {"states": 0.0}
    else:
        wrapped.p = 0.0
    grads = []
    for run in (wrapped, net):
        x = X.clone().requires_grad_()
        lengths = [5, 4, 2] if in_order else LENGTHS
        out = unpacked(run(pack(x, lengths, net.batch_first, in_order), state))
        total = sum(t.square().sum() for t in out if t.is_floating_point())
        grads.append((out, torch.autograd.grad(total, [x, *net.parameters()])))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(list(ours), list(theirs), rtol=1e-8, atol=1e-8)


def test_packed_sequences_in_evaluation():
    for kind in KINDS:
        net = plain(kind, num_layers=2, bidirectional=True)
        rates = {"inputs": 0.3, "between": 0.3, "outputs": 0.3, "weights": 0.3, "states": 0.3}
        wrapped = nn.DropState(net, **rates).eval()
        for ours, theirs in zip(unpacked(wrapped(pack())), unpacked(net(pack())), strict=True):
            assert torch.equal(ours, theirs)


PLACES = [
    {"states": P},
    {"states": P, "tied": False},
    {"states": P, "method": "recurrent"},
    {"states": P, "method": "recurrent", "per": "sequence"},
    {"states": P, "method": "rnndrop"},
    {"states": P, "cells": 0.6, "method": "zoneout"},
    {"inputs": P, "between": 0.3, "outputs": 0.5, "weights": 0.5},
    {"inputs": P, "between": 0.3, "states": 0.3, "outputs": 0.5},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("two_ways", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "projected", "gru"])
@pytest.mark.parametrize("places", PLACES, ids=str)
def test_packed_sequences_have_the_masks_of_each_example(places, kind, two_ways, training):
    """Each example of the packed batch equals the same example alone, without any padding.

    In the backward direction masks of single steps are those of the padded batch, which starts with
    padding, so there only the first layer's forward direction is compared.
    """
    if kind == "gru" and (places.get("method") == "rnndrop" or "cells" in places):
        return
    by_step = two_ways and training and places.get("method") in ("recurrent", "zoneout")
    by_step = by_step and places.get("per") != "sequence"
    net = network(
        kind, num_layers=1 if by_step or "between" not in places else 2, bidirectional=two_ways
    )
    wrapped, _ = keyed(net, **places)
    compared = slice(None, (net.proj_size or H) if by_step else None)
    wrapped.train(training)
    state = states_of(net)
    key = wrapped.model_key
    key.at(3, samples=[7, 8, 9])
    y, ends = wrapped(pack(), state)
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(y)
    assert lengths.tolist() == LENGTHS
    ends = ends if isinstance(ends, tuple) else (ends,)
    for n, length in enumerate(LENGTHS):
        key.at(3, samples=[7 + n])
        own = (
            tuple(s[:, n : n + 1] for s in state)
            if isinstance(state, tuple)
            else state[:, n : n + 1]
        )
        alone, end = wrapped(X[:length, n : n + 1], own)
        torch.testing.assert_close(padded[:length, n : n + 1, compared], alone[..., compared])
        for whole, single in zip(ends, end if isinstance(end, tuple) else (end,), strict=True):
            ways = slice(1 if by_step else None)
            torch.testing.assert_close(whole[ways, n : n + 1], single[ways])
    if training:  # and the noise is there
        clean = net(pack(), state)[0].data
        assert not torch.isclose(y.data, clean).all()


@pytest.mark.parametrize(
    ("method", "settings"), [(m, s) for m, k in METHODS if k == "lstm" for s in choices(m)], ids=str
)
def test_a_projected_lstm_at_fixed_masks_is_a_readable_loop(method, settings):
    """h = W (o tanh(c)): masks of h have its size, those of the memory the size of c."""
    net = network("projected")
    wrapped, tensor_key = keyed(net, states=P, method=method, **settings)
    h, c = (s[0] for s in states_of(net))
    per = (
        "t b d"
        if method == "zoneout" or (method == "recurrent" and settings.get("per") != "sequence")
        else "b d"
    )

    def drawn(size, index, per):
        mask = core.bernoulli_mask(
            (T, B, size), P, core.fold_in(tensor_key, index), X, per, "t b d"
        )
        return mask.to(DTYPE).expand(T, B, size)

    inverted = (
        settings.get("scale", "inverted" if method == "variational" else "classic") == "inverted"
    )
    gain = 1 / (1 - P) if inverted else 1.0
    of_h, of_c = drawn(3, 3, per), drawn(H, 3, per)
    cells = drawn(H, 5, "t b d")
    ys = []
    for t in range(T):
        seen = h * of_h[t] * gain if method == "variational" else h
        gates = (
            X[t] @ net.weight_ih_l0.T + net.bias_ih_l0 + seen @ net.weight_hh_l0.T + net.bias_hh_l0
        )
        i, f, g, o = gates.chunk(4, -1)
        written = i.sigmoid() * g.tanh() * (of_c[t] * gain if method == "recurrent" else 1.0)
        new_c = f.sigmoid() * c + written
        new_c = of_c[t] * new_c if method == "rnndrop" else new_c
        new_h = (o.sigmoid() * new_c.tanh()) @ net.weight_hr_l0.T
        h = torch.where(of_h[t] == 1, new_h, h) if method == "zoneout" else new_h
        c = torch.where(cells[t] == 1, new_c, c) if method == "zoneout" else new_c
        ys.append(h)
    assert_same(wrapped(X, states_of(net)), (torch.stack(ys), (h[None], c[None])))


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_projected_lstm_without_noise_is_torchs(shape, looped):
    net = network("projected", **shape)
    wrapped = nn.DropState(net, states=0.5, method="zoneout")
    wrapped._current_rates = lambda sampling: {"states": 0.0} if looped else {}
    x = X.transpose(0, 1) if net.batch_first else X
    assert_same(wrapped(x, states_of(net)), net(x, states_of(net)))
    assert list(wrapped.state_dict()) == list(net.state_dict())
    assert "proj_size=3" in repr(wrapped)


@pytest.mark.parametrize("method", ["recurrent", "zoneout"])
def test_the_backward_direction_of_a_packed_batch_has_the_masks_of_the_padded_one(method):
    """The examples at their ends, reversed: a forward layer with the same masks, step by step."""
    net, one_way = plain("gru", bidirectional=True), plain("gru")
    one_way.load_state_dict(
        {n: net.get_parameter(f"{n}_reverse") for n, _ in one_way.named_parameters()}
    )
    wrapped, tensor_key = keyed(net, states=P, method=method)
    y, end = wrapped(pack())
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    mask = core.bernoulli_mask((T, B, H), P, core.fold_in(tensor_key, 4), X, "t b d", "t b d")
    for n, length in enumerate(LENGTHS):
        rows = torch.zeros(T, 1, D, dtype=DTYPE)
        rows[:length] = X[:length, n : n + 1].flip(0)
        drawn = mask[T - length :, n : n + 1].to(DTYPE)  # the padding comes first
        drawn = torch.cat((drawn, torch.ones(T - length, 1, H, dtype=DTYPE)))
        h = torch.zeros(1, H, dtype=DTYPE)
        expected, _ = readable(one_way, rows, h, h, method, drawn, drawn, 1.0)
        torch.testing.assert_close(padded[:length, n, H:], expected[:length, 0].flip(0))
        torch.testing.assert_close(end[1, n], expected[length - 1, 0])


def dense_step(kind, x, h, c, weights, scale):
    """One step on all units in the formulas of torch's documentation; h enters W_hh scaled."""
    w_ih, w_hh, b_ih, b_hh = weights
    left, right = x @ w_ih.T + b_ih, (h * scale) @ w_hh.T + b_hh
    if kind == "LSTM":
        i, f, g, o = (left + right).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if kind == "GRU":
        (r, z, n), (r2, z2, n2) = left.chunk(3, -1), right.chunk(3, -1)
        z, n = (z + z2).sigmoid(), (n + (r + r2).sigmoid() * n2).tanh()
        return (1 - z) * n + z * h, c
    return (left + right).tanh(), c


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_thinned_states_equal_masked_dense_ones(kind, bidirectional):
    """A loop over steps on all units, with the masks multiplied in: the oracle shares no code."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(5, 7, 2, bidirectional=bidirectional).double()
    layer = nn.DropState(module, states=0.4, method="thinned")
    thinned.key(layer, seed=3).at(2)
    directions = 2 if bidirectional else 1
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    h0, c0 = torch.randn(2, 2 * directions, 3, 7, dtype=torch.float64)
    y, end = layer(x, (h0, c0) if kind == "LSTM" else h0)
    thinned.key_of(layer).at(2)
    key = layer.call_key()
    below, ends, cells = x, [], []
    names = dict(layer.named_parameters())
    for depth in range(2):
        outputs = []
        for direction in range(directions):
            kept = draw_patterns(7, 0.4, fold_in(key, 7 * depth + 3 + direction))[0]
            assert len(kept) == 4
            mask = torch.zeros(7, dtype=torch.float64)
            mask[kept] = 1.0
            suffix = f"l{depth}" + ("_reverse" if direction else "")
            weights = [names[f"{n}_{suffix}"] for n in ("weight_ih", "weight_hh", "bias_ih")]
            weights.append(names[f"bias_hh_{suffix}"])
            place = depth * directions + direction
            h, c, steps = h0[place], c0[place], []
            for t in reversed(range(6)) if direction else range(6):
                h, c = dense_step(kind, below[t], h, c, weights, mask * 7 / 4)
                steps.append(h * mask * 7 / 4)
            outputs.append(torch.stack(steps[::-1] if direction else steps))
            ends.append(h * mask)
            cells.append(c * mask)
        below = torch.cat(outputs, -1)
    right = [torch.stack(ends), torch.stack(cells)] if kind == "LSTM" else [torch.stack(ends)]
    torch.testing.assert_close(y, below, rtol=1e-12, atol=1e-12)
    for seen, wanted in zip(end if kind == "LSTM" else [end], right, strict=True):
        torch.testing.assert_close(seen, wanted, rtol=1e-12, atol=1e-12)
    tensors = [x, *names.values()]
    for seen, wanted in zip(
        torch.autograd.grad(y.sin().sum(), tensors),
        torch.autograd.grad(below.sin().sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(seen, wanted, rtol=1e-11, atol=1e-12)


def test_thinned_states_in_other_modes_and_at_the_ends():
    torch.manual_seed(0)
    module = torch.nn.LSTM(5, 6, batch_first=True)
    layer = nn.DropState(module, states=0.5, method="thinned")
    x = torch.randn(4, 3, 5)
    torch.testing.assert_close(layer.eval()(x)[0], module(x)[0])
    layer.train()
    key = thinned.key(layer, seed=1)
    key.at(0, samples=torch.arange(4))
    y, (h, _) = layer(x)
    dropped = (y == 0).all(0).all(0)
    assert int(dropped.sum()) == 3
    assert not h[..., dropped].any()
    key.at(0, samples=torch.tensor([2, 0, 3, 1]))  # one pattern for the batch, in any order
    torch.testing.assert_close(layer(x[[2, 0, 3, 1]])[0], y[[2, 0, 3, 1]])
    key.at(1)
    assert not torch.equal((layer(x)[0] == 0).all(0).all(0), dropped)
    lengths = torch.tensor([3, 1, 2, 3])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, True, False)
    key.at(0)
    out, (h, _) = layer(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(out, True)
    for n, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(padded[n, :length], y[n, :length])
        torch.testing.assert_close(h[0, n] * 2, y[n, length - 1])
    layer.states = 0.0
    torch.testing.assert_close(layer(x)[0], module(x)[0])
    layer.states = 1.0
    given = x.clone().requires_grad_()
    y, (h, c) = layer(given)
    y.sum().backward()
    for zero in (y, h, c, given.grad):
        assert not zero.any()
    with pytest.raises(InputError, match="projection"):
        nn.DropState(torch.nn.LSTM(5, 6, proj_size=2), states=0.5, method="thinned")
