"""Each method against its definition: closed forms, enumeration over all masks, and the papers'
constants.
"""

from __future__ import annotations

import copy
import itertools
import math
import operator
import re

import numpy as np
import pytest
import torch

import thinned
from thinned import InputError, functional, nn, presets
from thinned import functional as F
from thinned.algebra import Drop, Key, moments
from thinned.algebra.moments import rectified, variance_ratio_uniform
from thinned.algebra.plan import coefficients
from thinned.testing import assert_mean


def masks(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


@pytest.mark.parametrize("name", presets.CATALOG)
def test_catalogue_is_whole(name):
    """A name makes its point, or says what to write; what it is names its authors."""
    row = presets.CATALOG[name]
    assert row.url.startswith("https://")
    if isinstance(row.fn, str):
        with pytest.raises(
            InputError,
            match=re.escape(f"{name!r} is no point that goes anywhere, but thinned.{row.fn}"),
        ):
            presets.make(name)
        what = operator.attrgetter(row.fn)(thinned)
        described = re.search(r":func:`thinned\.(functional\.\w+)`", what.__doc__)
        doc = what.__doc__ + (
            operator.attrgetter(described.group(1))(thinned).__doc__ if described else ""
        )
    else:
        drop, doc = row.fn(), row.fn.__doc__
        assert isinstance(drop, Drop)
        assert drop.name == name
        assert presets.make(name, **{row.strength: 0.25}).rate == 0.25
    advice = presets.ADVICE[name]
    assert all(
        len(said) > 7 and said.endswith(".") for said in (advice.use, advice.cost, advice.avoid)
    )
    assert presets.CATALOG.keys() == presets.ADVICE.keys()
    assert row.paper.split()[0] in doc
    assert str(row.year) in doc


def test_geometric_mean_of_one_softmax_layer_is_weight_scaling():
    """Over all 2^6 masks, weighted: the renormalised geometric mean is classic evaluation, to 12
    digits.
    """
    rng = np.random.default_rng(0)
    x, w, b, p = rng.normal(size=6), rng.normal(size=(4, 6)), rng.normal(size=4), 0.3
    log_mean, mean = np.zeros(4), np.zeros(4)
    for m in masks(6):
        z = b + w @ (m * x)
        log_probability = z - np.logaddexp.reduce(z)
        weight = np.prod(np.where(m == 1, 1 - p, p))
        log_mean += weight * log_probability
        mean += weight * np.exp(log_probability)
    geometric = np.exp(log_mean) / np.exp(log_mean).sum()
    scaled = F.drop(torch.from_numpy(x), presets.dropout(p, "classic"), mode="mean").numpy()
    z = b + w @ scaled
    np.testing.assert_allclose(
        geometric, np.exp(z) / np.exp(z).sum(), rtol=1e-9
    )  # the threshold's rate is p to 2^-33
    assert np.abs(mean - geometric).max() > 1e-3  # the arithmetic mean is another thing


def test_marginal_linear_regression():
    """E|y - (R X) w|^2 = |y - q X w|^2 + p q |Gamma w|^2, Gamma^2 = diag(X'X): by all 2^(3x3) masks
    (Srivastava 9.1).
    """
    rng = np.random.default_rng(1)
    x, y, w, p = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3), 0.4
    expected = 0.0
    for m in masks(9):
        weight = np.prod(np.where(m == 1, 1 - p, p))
        expected += weight * np.sum((y - (m.reshape(3, 3) * x) @ w) ** 2)
    mo = moments(presets.dropout(p, "classic"))
    variance = sum(mo.var(x[i, j]) * w[j] ** 2 for i in range(3) for j in range(3))
    closed = np.sum((y - mo.gain * x @ w) ** 2) + variance
    assert math.isclose(closed, expected, rel_tol=1e-12)
    gamma = np.sqrt(np.diag(x.T @ x))
    assert math.isclose(
        np.sum((y - (1 - p) * x @ w) ** 2) + p * (1 - p) * np.sum((gamma * w) ** 2),
        expected,
        rel_tol=1e-12,
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_classic_and_inverted_are_one_method(momentum):
    """SGD on classic with rate lr equals inverted with q^2 lr on the weights after the dropout, W'
    = q W, same masks.
    """
    p, q, lr = 0.3, 1 - 0.3, 0.1
    torch.manual_seed(0)
    first, second = torch.nn.Linear(5, 8).double(), torch.nn.Linear(8, 3).double()
    inputs, target = torch.randn(40, 16, 5).double(), torch.randn(40, 16, 3).double()

    def train(scaling, rate):
        net = torch.nn.Sequential(
            copy.deepcopy(first),
            torch.nn.ReLU(),
            nn.SpecDropout(presets.dropout(p, scaling)),
            copy.deepcopy(second),
        )
        if scaling == "inverted":
            net[3].weight.data *= q
        key = nn.key(net, seed=4)
        groups = [
            {"params": [net[3].weight], "lr": rate},
            {"params": [*net[0].parameters(), net[3].bias], "lr": lr},
        ]
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum)
        for step, (x, y) in enumerate(zip(inputs, target, strict=True)):
            key.at(step)
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()
        return net.eval()

    classic, inverted = train("classic", lr), train("inverted", q * q * lr)
    torch.testing.assert_close(inverted[3].weight, q * classic[3].weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(classic(inputs[0]), inverted(inputs[0]), rtol=1e-6, atol=1e-9)


def test_dropped_unit_has_no_gradient():
    """A unit that fell gives no gradient to its incoming and outgoing weights, for that example."""
    torch.manual_seed(1)
    one, two = torch.nn.Linear(4, 10), torch.nn.Linear(10, 2)
    hidden = F.drop(one(torch.randn(1, 4)), presets.dropout(0.5), key=Key(2))
    two(hidden).sum().backward()
    fell = hidden[0] == 0
    assert fell.any()
    assert not fell.all()
    assert not one.weight.grad[fell].any()
    assert not two.weight.grad[:, fell].any()
    assert one.weight.grad[~fell].all()


def test_deep_linear_network_is_its_own_ensemble():
    """With independent masks, the mean over all 2^(3+3) subnetworks of a linear net is the scaled
    net, exactly.
    """
    rng = np.random.default_rng(2)
    a, b, x, p = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)), rng.normal(size=3), 0.2
    total = np.zeros(2)
    for m in masks(6):
        weight = np.prod(np.where(m == 1, 1 - p, p))
        total += weight * (b @ (m[3:] / (1 - p) * (a @ (m[:3] / (1 - p) * x))))
    np.testing.assert_allclose(total, b @ (a @ x), rtol=1e-12)


def test_two_inverted_dropouts_are_one():
    """The composition's mean and second moment are those of q = q1 q2."""
    one, two, both = (moments(presets.dropout(p)) for p in (0.2, 0.5, 1 - 0.8 * 0.5))
    x = 1.7
    second = (
        (two.square + 1) * (one.square + 1) * x * x
    )  # E[y^2] = (var factor + 1) x^2, applied twice
    assert math.isclose(second, (both.square + 1) * x * x, rel_tol=1e-12)


def test_sharing_a_coin_raises_the_variance_of_a_sum():
    """The tie lattice: per element <= per channel <= per example, for inputs of one sign."""
    x = torch.ones(1, 4, 6)

    def spread(drop):
        return (
            torch.stack([F.drop(x, drop, key=Key(seed)).sum() for seed in range(800)]).var().item()
        )

    law = presets.dropout(0.5).law
    element, channel, example = (
        spread(Drop(law, per=per, of="b c *")) for per in ("b c *", "b c", "b")
    )
    # 24 x^2 p/q, 24 * 6, 24 * 24; a sample variance of 800 draws is within 25 % at alpha 1e-6
    for measured, expected in ((element, 24), (channel, 144), (example, 576)):
        assert 0.75 * expected < measured < 1.25 * expected


def test_gaussian_has_the_moments_of_inverted():
    for p in (0.1, 0.5, 0.9):
        a, b = moments(presets.gaussian_dropout(p)), moments(presets.dropout(p))
        assert (a.gain, a.shift) == (1.0, 0.0)
        assert math.isclose(a.square, b.square, rel_tol=1e-12)


def test_gaussian_noise_is_normal():
    """Kolmogorov-Smirnov against the normal law, alpha 1e-6, and both halves of Box-Muller
    uncorrelated.
    """
    from scipy import stats

    noise = (
        F.drop(torch.ones(200, 500, dtype=torch.float64), presets.gaussian_dropout(0.5), key=Key(3))
        - 1
    )
    assert stats.kstest(noise.view(-1).numpy(), "norm").pvalue > 1e-6
    pairs = noise.view(-1, 2)
    assert abs(torch.corrcoef(pairs.T)[0, 1]) < 4.9 / math.sqrt(len(pairs))


def test_uniform_noise_is_uniform():
    from scipy import stats

    noise = F.drop(
        torch.ones(200, 500, dtype=torch.float64), presets.uniform_dropout(0.1), key=Key(3)
    )
    assert stats.kstest((noise.view(-1).numpy() - 0.9) / 0.2, "uniform").pvalue > 1e-6


def test_uout_variance_ratio():
    """300/301 = 0.99668 at beta 0.1 (Li et al. 2019)."""
    assert math.isclose(variance_ratio_uniform(0.1), 300 / 301, rel_tol=1e-12)
    assert math.isclose(
        1 / (1 + moments(presets.uniform_dropout(0.1)).square), 300 / 301, rel_tol=1e-12
    )


@pytest.mark.parametrize(
    ("p", "a", "b"),
    [(0.05, 0.954845, 0.083936), (0.1, 0.921285, 0.161970), (0.5, 0.886405, 0.779194)],
)
def test_alpha_constants(p, a, b):
    gain, shift, _ = coefficients(presets.alpha_dropout(p), p)
    assert abs(gain - a) < 1.1e-6
    assert abs(shift - b) < 1.1e-6


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_alpha_keeps_mean_zero_and_variance_one(p):
    """Exactly: E over coins and over any input of mean 0 and variance 1; here x = -1 or 1 with even
    odds.
    """
    m = moments(presets.alpha_dropout(p))
    mean = (m.mean(-1.0) + m.mean(1.0)) / 2
    second = sum(m.var(x) + m.mean(x) ** 2 for x in (-1.0, 1.0)) / 2
    assert math.isclose(mean, 0.0, abs_tol=1e-12)
    assert math.isclose(second, 1.0, rel_tol=1e-12)


def test_alpha_through_twenty_selu_layers():
    """Mean and variance stay near (0, 1) through 20 layers; ordinary dropout drifts away."""
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(256, 256, generator=generator, dtype=torch.float64) / 16 for _ in range(20)
    ]

    def final(drop):
        x = torch.randn(500, 256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for layer, w in enumerate(weights):
            x = F.drop(torch.selu(x @ w), drop, key=Key(0, stream=layer))
        return x.mean().item(), x.var().item()

    mean, var = final(presets.alpha_dropout(0.1))
    assert abs(mean) < 0.1
    assert 0.8 < var < 1.2
    mean, var = final(presets.dropout(0.1))
    assert var > 1.5 or abs(mean) > 0.3


def test_alpha_matches_torch_in_law():
    x = torch.zeros(100_000)
    ours, theirs = (
        F.alpha_dropout(x, 0.2, True).unique(),
        torch.nn.functional.alpha_dropout(x, 0.2, True).unique(),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_spatial_is_dropout_on_maps_of_one_place():
    x, key = torch.randn(5, 7, 1, 1), Key(3)
    assert torch.equal(
        F.drop(x, presets.spatial_dropout(0.4), key=key), F.drop(x, presets.dropout(0.4), key=key)
    )


def test_spatial_planes_are_whole():
    y = F.dropout2d(torch.ones(20, 30, 5, 4), 0.25)
    planes = y.flatten(2)
    assert ((planes == 0).all(-1) | (planes - 1 / 0.75).abs().lt(1e-6).all(-1)).all()
    assert 0 < (planes == 0).float().mean() < 1


# --- DropConnect
# -----------------------------------------------------------------------------------------------------


def tiny_layer(outputs=2, inputs=3):
    torch.manual_seed(3)
    return torch.nn.Linear(inputs, outputs).double()


def test_dropconnect_moments_by_enumeration():
    """All 2^(2 x (3 + 1)) masks of weights and biases: mean and variance of the pre-activation are
    exact.
    """
    layer, p = tiny_layer(), 0.3
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    whole = torch.cat((layer.weight, layer.bias[:, None]), 1).detach().numpy()
    v = np.array([0.5, -1.0, 2.0, 1.0])
    mean, second = np.zeros(2), np.zeros(2)
    for m in masks(8):
        weight = np.prod(np.where(m == 1, 1 - p, p))
        u = (m.reshape(2, 4) * whole) @ v
        mean += weight * u
        second += weight * u * u
    got_mean, got_var = nn.DropConnect(layer, p).moments(x)
    np.testing.assert_allclose(got_mean[0].detach(), mean, rtol=1e-12)
    np.testing.assert_allclose(got_var[0].detach(), second - mean**2, rtol=1e-12)


@pytest.mark.parametrize("sampling", ["exact", "moments"])
def test_dropconnect_draws_have_those_moments(sampling):
    host = nn.DropConnect(torch.nn.Linear(40, 3).double(), 0.4, sampling=sampling)
    x = torch.randn(1, 40, generator=torch.Generator().manual_seed(0)).double()
    mean, var = (t[0].tolist() for t in host.moments(x))
    key = nn.key(torch.nn.Sequential(host), 5)
    key.at(0)
    with torch.no_grad():
        draws = host(x.expand(5000, 40))
    for unit in range(3):
        values = draws[:, unit].tolist()
        assert_mean(values, mean[unit])
        assert_mean([(v - mean[unit]) ** 2 for v in values], var[unit])


def test_dropconnect_masks_are_per_example():
    """Two equal rows differ; with one mask over the batch, as most ports have it, they would not."""
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(20, 8), torch.ones(2, 20)
    each = nn.DropConnect(layer, 0.5)(x)
    assert not torch.equal(each[0], each[1])
    shared = nn.DropConnect(layer, Drop(presets.drop_connect(0.5).law, per="o i", of="b o i"))(x)
    assert torch.equal(shared[0], shared[1])


def test_dropconnect_tied_along_outputs_is_dropout():
    """A coin for each (example, input) is dropout on the input: the same draw gives the same
    result.
    """
    layer, x, key = tiny_layer(4, 6), torch.randn(5, 6).double(), Key(9)
    tied = Drop(presets.dropout(0.5).law, per="b i", of="b o i")
    weights = F.drop(layer.weight.expand(5, 4, 6), tied, key=key)
    by_weights = torch.einsum("boi,bi->bo", weights, x) + layer.bias
    by_inputs = torch.nn.functional.linear(
        F.drop(x, presets.dropout(0.5), key=key), layer.weight, layer.bias
    )
    torch.testing.assert_close(by_weights, by_inputs)


@pytest.mark.parametrize("activation", [torch.nn.ReLU(), torch.tanh, torch.nn.Softplus()])
def test_dropconnect_inference_is_the_gaussian_expectation(activation):
    """E[a(u)] against a million draws of u, alpha 1e-6; with no activation both inferences agree."""
    layer = tiny_layer(2, 5)
    x = torch.randn(1, 5, generator=torch.Generator().manual_seed(2)).double()
    host = nn.DropConnect(layer, 0.5, activation=activation, inference="moments").eval()
    mean, var = host.moments(x)
    u = mean + var.sqrt() * torch.randn(
        1_000_000, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    sampled = activation(u).detach()
    error = (host(x)[0] - sampled.mean(0)).abs() / (sampled.std(0) / 1000)
    assert (error < 4.9).all()
    plain = nn.DropConnect(layer, 0.5, activation=activation).eval()
    assert not torch.allclose(plain(x), host(x), rtol=1e-3)  # a(q W v) is another thing
    linear = [nn.DropConnect(layer, 0.5, inference=i).eval()(x) for i in ("mean", "moments")]
    torch.testing.assert_close(*linear)


def test_rectified_closed_form():
    """E max(0, z) by integration on a fine grid."""
    for mean, std in ((0.0, 1.0), (1.3, 0.4), (-2.0, 1.5), (0.7, 0.0)):
        z = np.linspace(mean - 12 * std, mean + 12 * std, 400_001) if std else np.array([mean])
        density = (
            np.exp(-0.5 * ((z - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
            if std
            else np.ones(1)
        )
        expected = np.trapezoid(np.maximum(z, 0) * density, z) if std else max(mean, 0.0)
        assert math.isclose(rectified(mean, std), expected, rel_tol=1e-8)
        got = functional.activations.rectified(
            torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        )
        assert math.isclose(got.item(), rectified(mean, std), rel_tol=1e-12, abs_tol=1e-300)
