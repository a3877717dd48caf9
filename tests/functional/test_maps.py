"""Disout, cutout, max-pooling and weighted channel dropout against their definitions; DropBlock
against what is published.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

import thinned
from thinned import InputError, nn, presets
from thinned import functional as F
from thinned.algebra import Key, Linear
from thinned.algebra.per import block_fraction, seed_rate


def maps(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "block"),
    [((4, 3, 9, 12), 3), ((4, 3, 9, 12), (4, 2)), ((4, 3, 20), 5), ((2, 2, 6, 5, 7), 2)],
)
@pytest.mark.parametrize("p", [0.2, 1.0])
def test_disout_without_distortion_is_dropblock(shape, block, p):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = maps(*shape).to(dtype)
        key = Key(5, samples=torch.arange(shape[0]) * 3)
        assert torch.equal(
            F.disout(x, p, block, alpha=0.0, key=key),
            F.drop(x, presets.drop_block(p, block), key=key),
        )
    layer = nn.Disout(p, block, alpha=0.0)
    thinned.key(layer, seed=1).at(3)
    y = layer(x)
    twin = nn.DropBlock(p=p, block_size=block)
    thinned.key(twin, seed=1).at(3)
    assert torch.equal(y, twin(x))


def test_disout_is_its_definition():
    x = maps(40, 6, 10, 10, dtype=torch.float64).mul_(3.0).add_(1.0)
    x.requires_grad_()
    p, block, alpha, scale = 0.3, 4, 2.0, 0.5
    y = F.disout(x, p, block, alpha, scale, key=Key(7))
    keep = F.mask(presets.drop_block(p, block), tuple(x.shape), Key(7))
    gain = keep.numel() / keep.sum()
    torch.testing.assert_close(y[keep], (x * gain)[keep])
    noise = (y / gain)[~keep] / (
        alpha * scale * x.std(correction=0)
    )  # standard normal, and no function of x
    n = noise.numel()
    assert n > 5000
    assert abs(noise.mean()) < 4.9 / math.sqrt(n)  # alpha 1e-6
    assert abs(noise.var() - 1) < 4.9 * math.sqrt(2 / n)
    assert abs((noise**4).mean() - 3) < 4.9 * math.sqrt(96 / n)
    assert abs((noise * x[~keep]).mean()) < 4.9 * (x[~keep] ** 2).mean().sqrt() / math.sqrt(n)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, keep * gain.double())
    per_channel = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], dtype=torch.float64).reshape(
        1, 6, 1, 1
    )
    y = F.disout(x, p, block, alpha, per_channel, key=Key(7))
    assert not y[:, ::2][~keep[:, ::2]].any()
    assert y[:, 1::2][~keep[:, 1::2]].all()
    assert F.disout(x, p, block, training=False) is x
    assert F.disout(x, 0.0, block) is x


def test_disout_of_everything_is_noise_of_its_size():
    x = maps(8, 4, 10, 10)
    y = F.disout(x, 1.0, 3, scale=1.0, key=Key(1))
    assert abs(y.std() - x.std()) < 0.2
    assert F.disout(torch.ones(1, 1, 1), 1.0, 1, key=Key(1)).isfinite().all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "build",
    [
        lambda p: nn.Disout(p, 3, scale=0.5),
        lambda p: nn.WeightedChannelDropout(p, extra=0.3),
        lambda p: nn.MaxPoolDropout2d(2, p=p),
    ],
)
def test_schedules_never_recompile_and_draw_what_eager_draws(build):
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    layer = build(Linear(0.0, 1.0, 4))
    key = thinned.key(layer)
    run = torch.compile(layer, backend=counter, fullgraph=True)
    frames = set()
    for step in range(5):
        x, twin = (maps(4, 6, 8, 8).abs().requires_grad_() for _ in range(2))
        key.at(step)
        y = run(x)
        key.at(step)
        expected = layer(twin)
        torch.testing.assert_close(y, expected)
        y.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, twin.grad)
        frames.add(counter.frame_count)
    assert len(frames) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_maps_of_any_size_in_one_graph():
    torch._dynamo.reset()
    model = torch.nn.Sequential(
        nn.Disout(0.3, 3),
        nn.Cutout(4),
        nn.WeightedChannelDropout(0.5),
        torch.nn.ReLU(),
        nn.MaxPoolDropout2d(2),
    )
    key = thinned.key(model)
    run = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for step, shape in enumerate(((4, 6, 8, 8), (3, 6, 10, 9), (5, 4, 12, 16))):
        key.at(step)
        y = run(maps(*shape))
        key.at(step)
        torch.testing.assert_close(y, model(maps(*shape)))


def hidden(n, size, center):
    """Which positions of an axis of ``n`` a hole hides, from its center."""
    return {i for i in range(center - size // 2, center - size // 2 + size) if 0 <= i < n}


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8), 4), ((8, 8), 3), ((7, 12), 5), ((5, 9), 6), ((6, 6), 10), ((30,), 7)],
)
def test_cutout_masks_what_enumeration_says(shape, size):
    """Every center, equally often; so the exact masked fraction is the mean over centers."""
    holes = {}
    for center in itertools.product(*(range(n) for n in shape)):
        places = itertools.product(
            *(hidden(n, size, c) for n, c in zip(shape, center, strict=True))
        )
        holes.setdefault(frozenset(places), []).append(center)
    count = 6000
    y = F.cutout(torch.ones(count, 2, *shape), size, key=Key(2))
    assert torch.equal(y[:, 0], y[:, 1])
    assert set(y.unique().tolist()) <= {0.0, 1.0}
    seen = Counter(frozenset(map(tuple, (m == 0).nonzero().tolist())) for m in y[:, 0])
    assert set(seen) <= set(holes)
    centers = math.prod(shape)
    chi = sum(
        (seen[h] - count * len(c) / centers) ** 2 / (count * len(c) / centers)
        for h, c in holes.items()
    )
    assert chi < len(holes) + 4.9 * math.sqrt(2 * len(holes)) + 16  # alpha 1e-6
    fractions = [len(h) / centers for h, c in holes.items() for _ in c]
    mean = sum(fractions) / centers
    axes = [sum(len(hidden(n, size, c)) for c in range(n)) / n**2 for n in shape]
    assert math.isclose(mean, math.prod(axes))
    error = math.sqrt(sum((f - mean) ** 2 for f in fractions) / centers / count)
    assert abs((y == 0).double().mean().item() - mean) < 4.9 * error + 1e-12


def test_cutout_holes_border_and_refusals():
    x = maps(500, 3, 16, 16)
    y = F.cutout(x, 8, key=Key(1))
    dropped = (y == 0)[:, 0].sum((1, 2))
    assert dropped.max() == 64  # inside the map
    assert dropped.min() == 16  # in a corner a quarter remains
    assert torch.equal(y[y != 0], x[y != 0])  # nothing is scaled
    twice = F.cutout(x, 8, holes=2, key=Key(1))
    assert (twice == 0).sum() > 1.5 * (y == 0).sum()
    assert F.cutout(x, 8, training=False) is x
    assert F.cutout(torch.full((1, 1, 4, 4), math.inf), 3, key=Key(0)).isnan().sum() == 0
    assert not torch.equal(
        F.cutout(x, 30, key=Key(1)), torch.zeros_like(x)
    )  # larger than the map, and yet clipped
    with pytest.raises(InputError, match="size 31 would hide the whole map of 16 x 16"):
        F.cutout(x, 31)
    order = torch.randperm(500)
    assert torch.equal(F.cutout(x[order], 8, key=Key(1, samples=order)), y[order])


def test_max_pool_dropout_is_the_mean_over_all_masks():
    p, q = 0.3, 0.7
    x = maps(2, 3, 2, 4, dtype=torch.float64).abs()
    windows = x.unfold(3, 2, 2).movedim(2, -1).flatten(-2)  # [2, 3, 2, 4]: two windows of four
    mean, square, law = torch.zeros(2, 3, 2).double(), torch.zeros(2, 3, 2).double(), Counter()
    for bernoulli_mask in itertools.product((0.0, 1.0), repeat=4):
        m = torch.tensor(bernoulli_mask, dtype=torch.float64)
        weight = (q**m * p ** (1 - m)).prod()
        top = (m * windows).amax(-1)
        mean += weight * top
        square += weight * top**2
        law[top[0, 0, 0].item()] += weight.item()
    pooled = F.max_pool_dropout(x, 2, None, p, training=False)
    torch.testing.assert_close(pooled[:, :, 0], mean)
    ordered = windows[0, 0, 0].sort().values.tolist()
    expected = {a: q * p ** (3 - i) for i, a in enumerate(ordered)} | {0.0: p**4}
    assert law.keys() == expected.keys()
    assert all(math.isclose(law[a], expected[a]) for a in law)
    count = 20_000
    drawn = F.max_pool_dropout(x[:1].expand(count, 3, 2, 4), 2, None, p, key=Key(4))[:, :, 0]
    error = ((square - mean**2)[0] / count).sqrt()
    assert ((drawn.mean(0) - mean[0]).abs() < 5.2 * error).all()  # alpha 1e-6 over 6 windows
    for a, chance in expected.items():
        assert abs((drawn[:, 0, 0] == a).double().mean() - chance) < 5.2 * math.sqrt(
            chance * (1 - chance) / count
        )


@pytest.mark.parametrize(
    ("shape", "layer", "peer"),
    [
        ((4, 3, 11), nn.MaxPoolDropout1d(3, 2, p=0.4), torch.nn.MaxPool1d(3, 2)),
        ((4, 3, 9, 10), nn.MaxPoolDropout2d((2, 3), p=0.4), torch.nn.MaxPool2d((2, 3))),
        ((4, 3, 6, 7, 5), nn.MaxPoolDropout3d(2, 1, p=0.4), torch.nn.MaxPool3d(2, 1)),
    ],
)
def test_max_pool_dropout_against_max_pooling(shape, layer, peer):
    x = maps(*shape).abs()
    thinned.key(layer, seed=2).at(0)
    drawn = layer(x)
    keep = x.ne(0) & F.mask(presets.dropout(0.4), shape, Key(2, stream=layer.stream))
    assert torch.equal(drawn, peer(x * keep))
    pooled = layer.eval()(x)
    assert pooled.shape == peer(x).shape
    assert (pooled < peer(x)).all()
    layer.p = 0.0
    assert torch.equal(layer(x), peer(x))
    assert torch.equal(layer.train()(x), peer(x))
    layer.p = 1.0
    assert not layer(x).any()
    assert not layer.eval()(x).any()


def ways(scores, count):
    """The chance of every set of ``count`` places under weighted choice without replacement."""
    chances = Counter()
    for order in itertools.permutations(range(len(scores)), count):
        rest, chance = sum(scores), 1.0
        for i in order:
            chance *= scores[i] / rest
            rest -= scores[i]
        chances[frozenset(order)] += chance
    return chances


def test_weighted_channels_are_chosen_without_replacement():
    """Keys r^(1 / s) choose as drawing one after the other does, weight by weight (Efraimidis and
    Spirakis 2006).
    """
    scores, count = (0.5, 1.0, 2.0, 4.0), 40_000
    x = torch.tensor(scores).reshape(1, 4, 1, 1) * torch.tensor(
        [[0.5, 1.5], [1.0, 1.0]]
    )  # of these means
    y = F.weighted_channel_dropout(x.expand(count, 4, 2, 2), 0.5, key=Key(1))
    kept = y.flatten(2).any(2)
    assert (kept.sum(1) == 2).all()
    seen = Counter(frozenset(row.nonzero().flatten().tolist()) for row in kept)
    for chosen, chance in ways(scores, 2).items():
        assert abs(seen[chosen] / count - chance) < 5.3 * math.sqrt(
            chance * (1 - chance) / count
        )  # alpha 1e-6 over 6 sets
    torch.testing.assert_close(
        y.mean((2, 3)).sum(1), torch.full((count,), 7.5)
    )  # the sum of scores is kept
    gain = 7.5 / (kept * torch.tensor(scores)).sum(1)
    torch.testing.assert_close(y, x * (kept * gain[:, None])[..., None, None])


def test_equal_scores_are_a_fixed_count_of_channels():
    x = maps(3000, 6, 2, 2).abs().requires_grad_()
    y = F.weighted_channel_dropout(x / x.mean((2, 3), keepdim=True).detach(), 1 / 3, key=Key(1))
    kept = y.flatten(2).any(2)
    assert (kept.sum(1) == 4).all()
    torch.testing.assert_close(
        y, (x / x.mean((2, 3), keepdim=True)) * (kept * 1.5)[..., None, None]
    )  # inverted
    seen = Counter(tuple(row.tolist()) for row in kept)
    assert len(seen) == 15
    chi = sum((n - 200) ** 2 / 200 for n in seen.values())
    assert chi < 60  # 14 degrees of freedom: alpha 1e-6 is 55
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(slope.flatten(2).any(2), kept)


def test_dead_and_negative_channels():
    x = torch.ones(2000, 4, 2, 2)
    x[:, 1] = 0.0
    x[:, 3] = -1.0
    y = F.weighted_channel_dropout(x, 0.5, key=Key(2))
    assert torch.equal(
        y, x * torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 4, 1, 1)
    )  # zero or less is chosen last
    y = F.weighted_channel_dropout(-torch.ones(2000, 4, 2, 2), 0.5, key=Key(2))
    kept = y.flatten(2).any(2)
    assert (kept.sum(1) == 2).all()
    assert (abs(kept.double().mean(0) - 0.5) < 5.2 * 0.5 / math.sqrt(2000)).all()
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], -2.0))
    dead = F.weighted_channel_dropout(torch.zeros(5, 4, 2, 2), 0.5, key=Key(2))
    assert torch.equal(dead, torch.zeros(5, 4, 2, 2))


def test_the_extra_rate_never_takes_all():
    x = torch.ones(4000, 4, 1, 1)
    y = F.weighted_channel_dropout(x, 0.5, extra=0.6, key=Key(3))
    kept = (y != 0).flatten(1).sum(1)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    chance = 2 * 0.6 * 0.4  # one of two; where both would be dropped, both are kept
    assert abs((kept == 1).double().mean() - chance) < 4.9 * math.sqrt(chance * (1 - chance) / 4000)
    assert set(kept.tolist()) == {1, 2}
    assert ((F.weighted_channel_dropout(x, 1.0, key=Key(3)) == 4).flatten(1).sum(1) == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.disout(maps(2, 3), 0.1), r"disout needs maps \[b, c, \*map\].*but got \[2, 3\]"),
        (lambda: F.disout(maps(2, 3, 4, 4), 0.1, 5), "block 5 is larger than the map of 4 x 4"),
        (
            lambda: F.disout(maps(2, 3, 4, 4), 0.1, (2, 2, 2)),
            "has 3 numbers, but the map has 2 axes",
        ),
        (lambda: F.disout(maps(2, 3, 4, 4), 0.1, 0), "block has to be at least 1, but got 0"),
        (lambda: F.disout(maps(2, 3, 4, 4), 1.1, 2), "between 0 and 1, but got 1.1"),
        (
            lambda: F.disout(maps(2, 3, 4, 4), 0.1, 2, alpha=-1),
            "alpha has to be at least 0, but got -1",
        ),
        (lambda: F.cutout(maps(2, 3)), "cutout needs maps"),
        (lambda: nn.Cutout(0), "size has to be at least 1"),
        (lambda: nn.Cutout(4, holes=0.5), "holes has to be a whole number"),
        (lambda: F.max_pool_dropout(maps(2, 3, 4), 2), "needs inputs of at least 0, but got -"),
        (
            lambda: F.max_pool_dropout(maps(2, 3, 4).abs(), 5),
            "kernel_size 5 is larger than the map of 4",
        ),
        (
            lambda: nn.MaxPoolDropout2d(2)(maps(2, 3, 4).abs()),
            r"kernel_size \(2, 2\) has 2 numbers, but the map has 1 axes",
        ),
        (lambda: nn.MaxPoolDropout2d((2, 2, 2)), "kernel_size has to be one number or 2 of them"),
        (lambda: F.max_pool_dropout(maps(2, 3, 4).abs(), 2, (1, 1)), "stride .* has 2 numbers"),
        (lambda: F.weighted_channel_dropout(maps(2, 3)), "weighted channel dropout needs maps"),
        (
            lambda: nn.WeightedChannelDropout(0.5, extra=1.0),
            "the extra rate has to be at least 0 and below 1",
        ),
        (lambda: nn.WeightedChannelDropout(1.5), "between 0 and 1, but got 1.5"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def seeds_anywhere(x, p, block):
    """The rule of timm: the gamma of the paper, which counts only whole blocks, with seeds on every
    place of the map.
    """
    gamma = seed_rate(p, (1, 1, block, block), tuple(x.shape))
    seeds = (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < gamma).float()
    dropped = torch.nn.functional.max_pool2d(seeds, block, 1, block // 2)
    return x * (1 - dropped)


@pytest.mark.parametrize(
    ("n", "block", "published", "definition"),
    [(14, 7, 0.209, 0.093), (7, 3, 0.149, 0.095), (7, 7, 0.93, 0.10)],
)
def test_what_published_dropblock_loses(n, block, published, definition):
    """At nominal 0.1: the border-corrected gamma is for seeds where a whole block fits, and to
    no others.
    """
    x = torch.ones(400, 64, n, n)
    gamma = seed_rate(0.1, (block, block), (n, n))
    along = [
        min(i + block // 2, n - 1) - max(i - block // 2, 0) + 1 for i in range(n)
    ]  # seeds anywhere that reach place i
    everywhere = 1 - sum((1 - gamma) ** (a * b) for a in along for b in along) / n**2
    assert round(everywhere, 3) == pytest.approx(published, abs=6e-3)
    lost = (seeds_anywhere(x, 0.1, block) == 0).float().mean().item()
    assert lost == pytest.approx(everywhere, abs=0.01)
    exact = block_fraction(gamma, (block, block), (n, n))
    assert exact == pytest.approx(definition, abs=6e-4)
    for y in (
        F.drop(x, presets.drop_block(0.1, block), key=Key(1)),
        F.disout(x, 0.1, block, key=Key(1)),
    ):
        ours = (
            1 - F.mask(presets.drop_block(0.1, block), tuple(x.shape), Key(1)).float().mean().item()
        )
        assert ours == pytest.approx(exact, abs=0.01)
        assert (y > 1).float().mean().item() == pytest.approx(1 - ours, abs=1e-6)


@pytest.mark.parametrize(("n", "block", "published"), [(14, 7, 0.209), (7, 7, 0.93)])
def test_what_timm_loses(n, block, published):
    """timm 1.0.31 itself, where it is installed."""
    drop = pytest.importorskip(
        "timm.layers.drop", reason="timm is not installed; its rule is written out above"
    )
    torch.manual_seed(1)
    lost = (drop.drop_block_2d(torch.ones(400, 64, n, n), 0.1, block) == 0).float().mean().item()
    assert lost == pytest.approx(published, abs=0.02)
