"""Layers on weights: what reaches the module inside, and mixout, targeted, shakeout, LoRA and DARE
by their definitions.
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Bernoulli, Drop, Key, Linear
from thinned.functional import core

torch_nn = torch.nn
BATCH = presets.drop_connect(0.5, per="batch")


def modules():
    torch.manual_seed(0)
    sequence = torch.randn(3, 6, 8)
    return {
        "linear": (torch_nn.Linear(8, 5), (sequence,), ["weight"]),
        "bilinear": (torch_nn.Bilinear(8, 8, 5), (sequence, sequence), ["weight"]),
        "conv1d": (torch_nn.Conv1d(4, 6, 3, groups=2), (torch.randn(3, 4, 9),), ["weight"]),
        "conv2d": (
            torch_nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
            (torch.randn(3, 4, 7, 7),),
            ["weight"],
        ),
        "conv3d": (torch_nn.Conv3d(2, 3, 2), (torch.randn(3, 2, 4, 4, 4),), ["weight"]),
        "transposed": (
            torch_nn.ConvTranspose2d(4, 6, 3, stride=2),
            (torch.randn(3, 4, 5, 5),),
            ["weight"],
        ),
        "lstm": (
            torch_nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True),
            (sequence,),
            [f"weight_hh_l{i}{way}" for i in (0, 1) for way in ("", "_reverse")],
        ),
        "gru": (torch_nn.GRU(8, 5), (sequence,), ["weight_hh_l0"]),
        "rnn": (torch_nn.RNN(8, 5), (sequence,), ["weight_hh_l0"]),
        "cell": (torch_nn.GRUCell(8, 5), (sequence[0], torch.randn(6, 5)), ["weight_hh"]),
        "attention": (
            torch_nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True),
            (sequence,) * 3,
            ["in_proj_weight", "out_proj.weight"],
        ),
        "embedding": (torch_nn.Embedding(10, 4), (torch.arange(10).reshape(2, 5),), ["weight"]),
        "stack": (
            torch_nn.Sequential(torch_nn.Linear(8, 6), torch_nn.LayerNorm(6), torch_nn.GRU(6, 5)),
            (sequence,),
            ["0.weight", "2.weight_ih_l0", "2.weight_hh_l0"],
        ),
    }


KINDS = list(modules())


def flat(result):
    return torch.cat(
        [
            t.flatten()
            for t in torch.utils._pytree.tree_leaves(result)
            if isinstance(t, torch.Tensor)
        ]
    )


def with_weights(module, weights):
    other = copy.deepcopy(module)
    with torch.no_grad():
        for name, weight in weights.items():
            other.get_parameter(name).copy_(weight)
    return other


@pytest.mark.parametrize("kind", KINDS)
def test_the_drawn_weights_reach_the_module(kind):
    """The result is that of the module with the drawn weights written into it, mask by mask;
    evaluation has their means.
    """
    module, inputs, names = modules()[kind]
    plain = copy.deepcopy(module)
    layer = nn.DropConnect(module, BATCH)
    assert list(layer.names) == names
    with thinned.recording(layer) as tape:
        y = layer(*inputs)
    (tensor_key,) = tape.drawn[""]
    dropped = {
        n: F.drop(plain.get_parameter(n), BATCH, key=core.fold_in(tensor_key, i))
        for i, n in enumerate(names)
    }
    assert all(0.2 < (w == 0).float().mean() < 0.8 for w in dropped.values())
    torch.testing.assert_close(flat(y), flat(with_weights(plain, dropped)(*inputs)))
    means = {n: 0.5 * plain.get_parameter(n) for n in names}
    layer.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            flat(layer(*inputs)), flat(with_weights(plain, means).eval()(*inputs))
        )
        with thinned.off(layer):
            assert torch.equal(flat(layer(*inputs)), flat(plain.eval()(*inputs)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_replaces_its_module(kind):
    """The same names, the same parameters, checkpoints both ways; nothing is written into the
    weights.
    """
    module, inputs, names = modules()[kind]
    plain, before = copy.deepcopy(module), copy.deepcopy(module.state_dict())
    parameters = dict(module.named_parameters())
    layer = nn.DropConnect(module, BATCH)
    assert {n: id(p) for n, p in layer.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }
    assert list(layer.state_dict()) == list(plain.state_dict())
    first = flat(layer(*inputs))
    assert not torch.equal(first, flat(layer(*inputs)))
    first.square().sum().backward()
    assert all(layer.get_parameter(n).grad.count_nonzero() for n in names)
    assert all(torch.equal(before[n], t) for n, t in layer.state_dict().items())
    twin = copy.deepcopy(layer)
    plain.load_state_dict(layer.state_dict())
    layer.load_state_dict({n: t + 1.0 for n, t in plain.state_dict().items()})
    assert torch.equal(layer.get_parameter(names[0]), plain.get_parameter(names[0]) + 1.0)
    assert torch.equal(twin.get_parameter(names[0]), plain.get_parameter(names[0]))
    layer.p = 0.0
    torch.testing.assert_close(flat(layer(*inputs)), flat(module(*inputs)))
    layer.double()
    assert (
        flat(layer(*(x.double() if x.is_floating_point() else x for x in inputs))).dtype
        == torch.float64
    )
    assert layer.eval().inner.training is False
    assert layer.train().inner.training is True


def test_recurrent_weights_are_plain_again_after_a_call():
    """Neither do the flat weights keep a draw, nor do the weights decay over calls: both happened
    in published ports.
    """
    lstm = torch_nn.LSTM(4, 6)
    layer, x = nn.DropConnect(lstm, 0.5), torch.randn(5, 3, 4)
    before = lstm.weight_hh_l0.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            layer(x)[0].sum().backward()
    assert torch.equal(lstm.weight_hh_l0, before)
    assert all(a is b for a, b in zip(lstm._flat_weights, lstm.parameters(), strict=True))


def test_a_batch_shares_its_masks_where_the_point_says_so():
    rows = torch.ones(2, 20)
    shared = nn.DropConnect(torch_nn.Linear(20, 8), BATCH)(rows)
    assert torch.equal(shared[0], shared[1])
    each = nn.DropConnect(torch_nn.Linear(20, 8), presets.drop_connect(0.5))(rows)
    assert not torch.equal(each[0], each[1])
    maps = nn.DropConnect(torch_nn.Conv2d(3, 8, 1), 0.5)(torch.ones(2, 3, 4, 4))
    assert torch.equal(maps[0], maps[1])


def test_a_draw_for_each_input_is_dropout_of_channels():
    """Weights tied along outputs and taps, inverted: SpatialDropout with one mask for the batch,
    draw by draw.
    """
    conv, x = torch_nn.Conv2d(6, 4, 3), torch.randn(3, 6, 8, 8)
    layer = nn.DropConnect(conv, Drop(Bernoulli(0.5), per="i", of="o i *"))
    with thinned.recording(layer) as tape:
        y = layer(x)
    (tensor_key,) = tape.drawn[""]
    spatial = F.drop(x, Drop(Bernoulli(0.5), per="c", of="b c *"), key=core.fold_in(tensor_key, 0))
    torch.testing.assert_close(y, conv(spatial), rtol=1e-4, atol=1e-5)


def test_names_are_patterns():
    lstm = torch_nn.LSTM(4, 5, 2)
    assert nn.DropConnect(lstm, names="weight_*").names == (
        "weight_ih_l0",
        "weight_hh_l0",
        "weight_ih_l1",
        "weight_hh_l1",
    )
    assert nn.DropConnect(torch_nn.Linear(3, 2), 0.1, names=["weight", "bias"]).names == (
        "weight",
        "bias",
    )
    assert nn.Mixout(
        torch_nn.Sequential(torch_nn.Linear(2, 2), torch_nn.Linear(2, 2)), names="1.*"
    ).names == (
        "1.weight",
        "1.bias",
    )


def test_lstm_in_a_model_with_a_key_and_a_schedule():
    model = torch_nn.Sequential(nn.DropConnect(torch_nn.LSTM(4, 5), Linear(0.0, 0.8, 4)))
    key, x = thinned.key(model, 3), torch.randn(6, 2, 4)
    key.at(0)
    torch.testing.assert_close(model(x)[0], model[0].inner(x)[0])
    key.at(4)
    assert model[0].p == 0.8
    first = model(x)[0]
    key.at(4)
    assert torch.equal(first, model(x)[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda p: nn.DropConnect(torch_nn.Linear(8, 8), p),
        lambda p: nn.DropConnect(torch_nn.Conv1d(8, 8, 1), p),
        lambda p: nn.Mixout(torch_nn.Linear(8, 8), p, names="*"),
        lambda p: nn.TargetedDropout(torch_nn.Linear(8, 8), p),
        lambda p: nn.Shakeout(torch_nn.Linear(8, 8), p),
    ],
)
def test_a_schedule_never_recompiles(build):
    torch._dynamo.reset()
    import torch._dynamo.testing as testing

    counter = testing.CompileCounterWithBackend("aot_eager")
    model = torch_nn.Sequential(build(Linear(0.0, 1.0, 3)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    key = thinned.key(model)
    run = torch.compile(model, backend=counter, fullgraph=True)
    x = torch.randn(6, 8, 1) if isinstance(model[0].inner, torch_nn.Conv1d) else torch.randn(6, 8)
    results = []
    for step in range(5):
        key.at(step)
        y = run(x)
        key.at(step)
        torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-5)
        results.append((y, counter.frame_count))
    assert results[0][1] == results[-1][1]
    assert not torch.equal(results[0][0], results[2][0])


class AuthorsMixout(torch.autograd.Function):
    """Mixout with the backward pass that the authors published: the mask without its division."""

    @staticmethod
    def forward(ctx, w, u, m, p):
        ctx.save_for_backward(m)
        return (m * w + (1 - m) * u - p * u) / (1 - p)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None, None


def test_the_published_backward_of_mixout_is_no_gradient():
    p, w = 0.9, torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    u = torch.randn(6, 5, dtype=torch.float64)
    m = F.mask(Drop(Bernoulli(p), "*", "*"), (6, 5), Key(4)).double()
    assert 0 < m.sum() < 30
    torch.testing.assert_close(AuthorsMixout.apply(w, u, m, p), F.mixout(w, u, p, key=Key(4)))
    assert torch.autograd.gradcheck(lambda w: F.mixout(w, u, p, key=Key(4)), (w,))
    with pytest.raises(GradcheckError):
        torch.autograd.gradcheck(lambda w: AuthorsMixout.apply(w, u, m, p), (w,))
    theirs = torch.autograd.grad(AuthorsMixout.apply(w, u, m, p).sum(), w)[0]
    ours = torch.autograd.grad(F.mixout(w, u, p, key=Key(4)).sum(), w)[0]
    torch.testing.assert_close(ours, 10.0 * theirs)  # too small by 1 / (1 - p)


def test_mixout_of_units_and_its_reductions():
    w, u = torch.randn(2000, 6, 3), torch.randn(2000, 6, 3)
    y = F.mixout(w, u, 0.5, per="unit", key=Key(2))
    dropped = torch.isclose(y, u)
    assert torch.equal(dropped, dropped[:1, :, :1].expand_as(dropped))
    assert 0 < dropped[0, :, 0].sum() < 6
    zero = F.mixout(w, torch.zeros_like(w), 0.5, key=Key(2))
    torch.testing.assert_close(
        zero, F.drop(w, presets.drop_connect(0.5, "inverted", per="batch"), key=Key(2))
    )
    assert F.mixout(w, u, 0.0) is w
    total = torch.zeros(2, 2, dtype=torch.float64)
    small, anchor, p = torch.randn(2, 2).double(), torch.randn(2, 2).double(), 0.3
    second = torch.zeros_like(total)
    for bernoulli_mask in itertools.product(
        (0.0, 1.0), repeat=4
    ):  # the formula's mean and variance, over all masks
        m = torch.tensor(bernoulli_mask, dtype=torch.float64).reshape(2, 2)
        weight = (0.7**m * 0.3 ** (1 - m)).prod()
        mixed = anchor + m * (small - anchor) / 0.7
        total, second = total + weight * mixed, second + weight * mixed.square()
    torch.testing.assert_close(total, small)
    torch.testing.assert_close(second - total.square(), p / 0.7 * (small - anchor).square())


def test_mixout_layers_remember_where_they_started():
    module, x = torch_nn.Linear(6, 4), torch.randn(3, 6)
    pretrained = module(x).detach()
    layer = nn.Mixout(module, 1.0)
    assert list(layer.state_dict()) == ["weight", "bias"]
    with torch.no_grad():
        layer.weight.add_(1.0)
    torch.testing.assert_close(layer(x), pretrained)  # everything is what it was
    torch.testing.assert_close(layer.eval()(x), module(x))
    layer.train().anchor()
    torch.testing.assert_close(layer(x), module(x))
    layer.p = 0.5
    assert torch.equal(layer(x), module(x))  # at the anchor there is nothing to mix
    assert layer.double().get_buffer("anchor_0").dtype == torch.float64
    resumed = nn.Mixout(torch_nn.Linear(6, 4), 0.5)
    resumed.load_state_dict(layer.state_dict())
    torch.testing.assert_close(resumed.eval().double()(x.double()), layer.eval()(x.double()))


def test_targeted_candidates_are_the_smallest_of_each_output():
    w = torch.randn(5, 10)
    pruned = F.targeted_dropout(w, 0.3, 0.4, training=False)
    for row, kept in zip(w, pruned, strict=True):
        limit = row.abs().sort().values[4]
        assert torch.equal(kept, torch.where(row.abs() < limit, 0.0, row))
    units = F.targeted_dropout(w, 0.3, 0.4, training=False, per="unit")
    limit = w.norm(dim=1).sort().values[2]
    assert torch.equal(units, torch.where((w.norm(dim=1) < limit)[:, None], 0.0, w))
    for per in ("weight", "unit"):
        every = F.targeted_dropout(w, 1.0, 0.4, per=per, key=Key(1))
        assert torch.equal(
            every, F.targeted_dropout(w, 0.3, 0.4, training=False, per=per)
        )  # p = 1 prunes in every step
        assert torch.equal(F.targeted_dropout(w, 0.5, 0.0, per=per, key=Key(1)), w)
    conv = torch.randn(4, 3, 2, 2)
    flat_rows = F.targeted_dropout(conv.flatten(1), 0.5, 0.5, key=Key(3))
    assert torch.equal(
        F.targeted_dropout(conv, 0.5, 0.5, training=False).flatten(1) == 0,
        F.targeted_dropout(conv.flatten(1), 0.5, training=False) == 0,
    )
    assert (flat_rows == 0).sum() <= 4 * 6
    ties = torch.tensor([[0.1, 1.0, 1.0, 2.0]])  # the second smallest is equal to the third
    assert torch.equal(F.targeted_dropout(ties, 1.0, 0.5) == 0, ties < 1)
    assert int((F.targeted_dropout(torch.randn(1, 100), 1.0, 0.29) == 0).sum()) == 29


def test_targeted_drops_candidates_at_its_rate_and_scales_nothing():
    w = torch.rand(400, 50) + 0.1
    candidates = F.targeted_dropout(w, 0.3, 0.4, training=False) == 0
    y = F.targeted_dropout(w, 0.3, 0.4, key=Key(2))
    dropped = y == 0
    assert not (dropped & ~candidates).any()
    assert torch.equal(y[~dropped], w[~dropped])
    n = int(candidates.sum())
    assert abs(int(dropped.sum()) - 0.3 * n) < 4.9 * math.sqrt(0.21 * n)  # alpha 1e-6
    rows = F.targeted_dropout(w, 0.5, 0.5, per="unit", key=Key(2)) == 0
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert 60 < rows[:, 0].sum() < 140  # binomial(200, 1/2)


@pytest.mark.parametrize("per", ["weight", "unit"])
def test_targeted_depends_on_ranks_alone(per):
    """Any growing function of the magnitudes, and any signs, leave the mask as it is."""
    w = torch.randn(8, 12).exp()
    turned = (w**3 if per == "weight" else w * 7.0) * torch.where(
        torch.rand_like(w) < 0.5, -1.0, 1.0
    )
    assert torch.equal(
        F.targeted_dropout(w, 0.5, 0.5, per=per, key=Key(5)) == 0,
        F.targeted_dropout(turned, 0.5, 0.5, per=per, key=Key(5)) == 0,
    )


def test_targeted_of_all_weights_is_unscaled_dropconnect():
    w = torch.randn(8, 12)
    y = F.targeted_dropout(w, 0.5, 1.0, key=Key(6))
    assert torch.equal(
        y, F.drop(w, BATCH, key=Key(6))
    )  # the classic scale: nothing is scaled while training
    layer, x = nn.TargetedDropout(torch_nn.Linear(12, 8), 0.5, 0.75), torch.randn(3, 12)
    pruned = F.targeted_dropout(layer.weight, 0.5, 0.75, training=False)
    torch.testing.assert_close(layer.eval()(x), torch.nn.functional.linear(x, pruned, layer.bias))
    assert (pruned == 0).sum() == 8 * 9


def test_shakeout_layers():
    linear, x = torch_nn.Linear(6, 4), torch.randn(5, 6)
    layer = nn.Shakeout(linear, 0.4, 0.7)
    with thinned.recording(layer) as tape:
        y = layer(x)
    torch.testing.assert_close(
        y, F.shakeout(x, linear.weight, linear.bias, 0.4, 0.7, key=tape.drawn[""][0])
    )
    torch.testing.assert_close(layer.eval()(x), linear(x))
    drop = nn.Shakeout(linear, 0.4, 0.0).train()
    with thinned.recording(drop) as tape:
        y = drop(x)
    torch.testing.assert_close(y, linear(F.drop(x, presets.dropout(0.4), key=tape.drawn[""][0])))


def test_lora():
    """At B = 0 no draw shows; merged, no dropout is left; only A and B learn."""
    linear, x = torch_nn.Linear(6, 4), torch.randn(5, 6)
    plain = copy.deepcopy(linear)
    layer = nn.LoraDropout(linear, 2, 4.0, 0.5)
    assert torch.equal(layer(x), plain(x))
    layer(x).sum().backward()
    assert [n for n, p in layer.named_parameters() if p.requires_grad] == ["down", "up"]
    assert layer.up.grad.count_nonzero()
    assert not layer.down.grad.count_nonzero()  # B = 0 stands before it
    torch_nn.init.normal_(layer.up)
    with thinned.recording(layer) as tape:
        y = layer(x)
    dropped = F.drop(x, presets.dropout(0.5), key=tape.drawn["dropout"][0])
    torch.testing.assert_close(y, plain(x) + 2.0 * dropped @ layer.down.T @ layer.up.T)
    merged = layer.merge()
    assert type(merged) is torch_nn.Linear
    torch.testing.assert_close(merged.train()(x), layer.eval()(x))
    assert torch.equal(layer.weight, plain.weight)
    assert nn.LoraDropout(torch_nn.Linear(6, 4, bias=False), 2).merge().bias is None
    layer.load_state_dict(plain.state_dict(), strict=False)
    layer.p = 0.25
    assert layer.dropout.p == 0.25


def test_dare():
    """Every entry is the base's, or the base with its change divided by 1 - p; the mean is the
    tuned weight.
    """
    base, tuned = torch.randn(40, 50).double(), torch.randn(40, 50).double()
    merged = F.dare(tuned, base, 0.9, key=Key(1))
    kept = F.mask(Drop(Bernoulli(0.9), "*", "*"), (40, 50), Key(1))
    torch.testing.assert_close(merged, torch.where(kept, base + (tuned - base) / 0.1, base))
    assert torch.equal(merged, F.mixout(tuned, base, 0.9, key=Key(1)))
    assert 130 < kept.sum() < 270  # binomial(2000, 0.1)
    mean = torch.stack([F.dare(tuned, base, 0.5, key=Key(s)) for s in range(400)]).mean(0)
    z = (mean - tuned) / (tuned - base).abs() * 20.0  # of deviation sqrt(p / q) |delta| / sqrt(400)
    assert (
        z.abs().max() < 6.5
    )  # alpha 1e-6 over 2000 entries, with a margin for the binomial's tails
    assert torch.equal(F.dare(tuned, base, 0.0), tuned)
    torch.testing.assert_close(F.dare(tuned, base, 1.0), base)


def test_dare_of_state_dicts():
    def network():
        return torch_nn.Sequential(
            torch_nn.Linear(30, 30), torch_nn.BatchNorm1d(30), torch_nn.Linear(30, 30)
        )

    base, tuned = network().state_dict(), network().state_dict()
    tuned["1.num_batches_tracked"] += 7
    merged = F.dare(tuned, base, 0.5, key=Key(3))
    assert merged["1.num_batches_tracked"] == 7
    assert list(merged) == list(tuned)
    turned = F.dare(dict(reversed(tuned.items())), base, 0.5, key=Key(3))
    assert all(torch.equal(merged[n], turned[n]) for n in merged)  # draws are keyed by names
    masks = [torch.isclose(merged[n], base[n]) for n in ("0.weight", "2.weight")]
    assert not torch.equal(*masks)
    network().load_state_dict(merged)
    with pytest.raises(
        InputError, match=r"hold the same names, but only one of them has '0.weight'"
    ):
        F.dare(tuned, {n: t for n, t in base.items() if n != "0.weight"})
    with pytest.raises(InputError, match="two tensors or two state dicts"):
        F.dare(tuned, base["0.weight"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: nn.DropConnect(torch_nn.Conv2d(1, 1, 1), presets.drop_connect()),
            r"got Conv2d; share.*per=\"batch\"",
        ),
        (
            lambda: nn.DropConnect(torch_nn.LSTM(1, 1), activation=torch.relu),
            "are for masks of each example",
        ),
        (
            lambda: nn.DropConnect(torch_nn.Conv1d(1, 1, 1), Drop(Bernoulli(0.5), "o i", "o i")),
            "needs a tensor of 2 axes",
        ),
        (lambda: nn.DropConnect(torch_nn.ReLU()), "ReLU has no weight matrix; name what changes"),
        (
            lambda: nn.DropConnect(torch_nn.LazyLinear(3), BATCH),
            "'weight' has no shape yet; call the module once",
        ),
        (
            lambda: nn.DropConnect(torch_nn.GRU(2, 3), names="weight_hx*"),
            r"unknown parameter 'weight_hx\*'; did you mean",
        ),
        (lambda: nn.DropConnect(torch_nn.GRU(2, 3), names=()), "names is empty"),
        (
            lambda: nn.DropConnect(torch_nn.Linear(2, 3), presets.drop_connect(), names="weight"),
            "masks that the batch shares",
        ),
        (
            lambda: nn.DropConnect(nn.Dropout(0.5)),
            "that is no dropout module itself, but got Dropout",
        ),
        (
            lambda: nn.DropConnect(torch_nn.Conv1d(1, 1, 1)).moments(torch.ones(1)),
            "have no moments here",
        ),
        (lambda: nn.DropConnect(torch_nn.Conv1d(1, 1, 1), 1.5), "between 0 and 1, but got 1.5"),
        (lambda: presets.drop_connect(0.5, per="row"), "unknown per 'row'"),
        (lambda: nn.Mixout(torch_nn.Linear(2, 3), 0.5, per="row"), "unknown per 'row'"),
        (
            lambda: nn.Mixout(torch_nn.Linear(2, 3), 0.5, "unit", "*"),
            r"\[out, in, ...\], but got \[3\]",
        ),
        (
            lambda: nn.TargetedDropout(torch_nn.Linear(2, 3), 0.5, 1.5),
            "the fraction of candidates has to be between 0 and 1",
        ),
        (
            lambda: nn.TargetedDropout(3),
            "needs a module that is no dropout module itself, but got int",
        ),
        (
            lambda: F.mixout(torch.ones(3), torch.ones(3), per="unit"),
            r"\[out, in, ...\], but got \[3\]",
        ),
        (lambda: F.targeted_dropout(torch.ones(3)), r"\[out, in, ...\], but got \[3\]"),
        (
            lambda: F.targeted_dropout(torch.ones(3, 2), fraction=1.5),
            "the fraction of candidates has to be between 0 and 1",
        ),
        (
            lambda: nn.TargetedDropout(torch_nn.ConvTranspose1d(2, 3, 1)),
            "transposed convolutions hold on axis 1",
        ),
        (lambda: nn.Shakeout(torch_nn.Linear(2, 3), c=-1), "c has to be at least 0, but got -1"),
        (lambda: nn.Shakeout(torch_nn.Conv1d(2, 3, 1)), "needs a torch.nn.Linear, but got Conv1d"),
        (lambda: nn.LoraDropout(torch_nn.Linear(2, 3), 3), "rank has to be at most 2, but got 3"),
        (
            lambda: nn.LoraDropout(torch_nn.Conv1d(2, 3, 1)),
            "needs a torch.nn.Linear, but got Conv1d",
        ),
    ],
)
def test_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
