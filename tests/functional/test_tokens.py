"""Token dropout, PatchDropout and HiddenCut against their definitions."""

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


def tokens(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_token_dropout_drops_whole_vectors():
    x = tokens(200, 20, 6)
    y = F.drop(x, presets.token_dropout(0.25), key=Key(1))
    kept = F.mask(presets.token_dropout(0.25), (200, 20, 6), Key(1))
    assert kept.shape == (200, 20, 1)
    torch.testing.assert_close(y, x * kept / 0.75)
    assert abs(kept.double().mean() - 0.75) < 4.9 * math.sqrt(0.25 * 0.75 / 4000)  # alpha 1e-6
    flat = F.mask(presets.dropout(0.25), (200, 20), Key(1))
    assert torch.equal(kept[..., 0], flat)  # on single numbers it is dropout
    first = nn.TokenDropout(p=0.25, layout="t b d")(torch.ones(20, 8, 16))
    assert torch.equal(first, first[..., :1].expand_as(first))


@pytest.mark.parametrize(
    ("p", "patches", "kept"),
    [(0.5, 9, 4), (0.9, 10, 1), (0.5, 196, 98), (0.3, 10, 7), (0.1, 196, 176)],
)
def test_patch_dropout_keeps_so_many_in_their_order(p, patches, kept):
    for prefix in (0, 1, 2):
        x = torch.arange(prefix + patches).expand(50, -1).float().unsqueeze(-1).repeat(1, 1, 3)
        y, places = F.patch_dropout(x, p, prefix, indices=True, key=Key(2))
        assert y.shape == (50, prefix + kept, 3)
        assert torch.equal(places[:, :prefix], torch.arange(prefix).expand(50, -1))
        assert (places.diff(dim=1) > 0).all()
        assert torch.equal(y[..., 0], places.float())  # nothing is scaled
        assert torch.equal(F.patch_dropout(x, p, prefix, key=Key(2)), y)
        assert F.patch_dropout(x, p, prefix, training=False) is x
        assert F.patch_dropout(x, 0.0, prefix) is x
        whole, every = F.patch_dropout(x, p, prefix, training=False, indices=True)
        assert whole is x
        assert torch.equal(every, torch.arange(prefix + patches).expand(50, -1))


def test_every_subset_of_patches_is_as_likely():
    count = 6000
    _, places = F.patch_dropout(torch.zeros(count, 6), 0.4, prefix=1, indices=True, key=Key(5))
    seen = Counter(tuple(row) for row in places[:, 1:].tolist())
    assert seen.keys() == set(itertools.combinations(range(1, 6), 3))
    assert (
        sum((n - 600) ** 2 / 600 for n in seen.values()) < 46
    )  # 9 degrees of freedom: alpha 1e-6 is 45.1


def test_attention_on_the_kept_is_masked_attention():
    x = tokens(4, 10, 8)
    y, places = F.patch_dropout(x, 0.5, indices=True, key=Key(3))
    attention = torch.nn.functional.scaled_dot_product_attention
    mask = torch.zeros(4, 1, 10, dtype=torch.bool).scatter_(2, places.unsqueeze(1), True)
    full = attention(x, x, x, attn_mask=mask)
    torch.testing.assert_close(
        attention(y, y, y), full.gather(1, places.unsqueeze(-1).expand(-1, -1, 8))
    )


def test_gradients_reach_what_was_kept():
    x = tokens(5, 12, 3).requires_grad_()
    y, places = F.patch_dropout(x, 0.5, indices=True, key=Key(3))
    y.sum().backward()
    kept = torch.zeros(5, 12).scatter_(1, places, 1.0)
    assert torch.equal(x.grad, kept.unsqueeze(-1).expand_as(x))


def test_patch_dropout_follows_a_schedule():
    layer = nn.PatchDropout(Linear(0.0, 0.8, 4))
    key = thinned.key(layer)
    run = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for step, kept in enumerate((10, 8, 6, 4, 2)):
        key.at(step)
        y = layer(tokens(3, 11, 4))
        key.at(step)
        assert y.shape == (3, 1 + kept, 4)
        assert torch.equal(run(tokens(3, 11, 4)), y)


@pytest.mark.parametrize(
    ("count", "p", "length"), [(10, 0.3, 3), (7, 0.5, 4), (9, 1.0, 9), (30, 0.1, 3), (5, 0.05, 0)]
)
def test_hidden_cut_is_one_span(count, p, length):
    examples = 4000
    x = torch.ones(examples, count, 2, requires_grad=True)
    y = F.hidden_cut(x, p, key=Key(4))
    dropped = y[..., 0] == 0
    assert torch.equal(y[..., 0], y[..., 1])
    assert set(y.unique().tolist()) <= {0.0, 1.0}
    assert (dropped.sum(1) == length).all()
    if 0 < length < count:
        assert ((dropped[:, 1:] & ~dropped[:, :-1]).sum(1) + dropped[:, 0] == 1).all()  # one run
        starts = Counter(dropped.double().argmax(1).tolist())
        places = count - length + 1
        assert set(starts) == set(range(places))
        expected = examples / places
        chi = sum((n - expected) ** 2 / expected for n in starts.values())
        assert chi < places + 4.9 * math.sqrt(2 * places) + 16
    y.sum().backward()
    assert torch.equal(x.grad[..., 0] == 0, dropped)
    assert F.hidden_cut(x, p, training=False) is x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hidden_cut_follows_a_schedule_in_one_graph():
    torch._dynamo.reset()
    layer = nn.HiddenCut(Linear(0.0, 1.0, 4))
    key = thinned.key(layer)
    run = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for step in range(6):
        key.at(step)
        y = run(torch.ones(6, 9, 4))
        key.at(step)
        assert torch.equal(y, layer(torch.ones(6, 9, 4)))
        assert ((y == 0)[..., 0].sum(1) == round(9 * min(1.0, step / 4))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: F.patch_dropout(tokens(4)), r"needs tokens \[b, t, ...\], but got \[4\]"),
        (
            lambda: F.patch_dropout(tokens(4, 3), prefix=3),
            "prefix has to be below the 3 tokens, but got 3",
        ),
        (
            lambda: F.patch_dropout(tokens(4, 5), 0.9),
            "would drop all 4 patches; use a rate of at most 0.75",
        ),
        (lambda: F.patch_dropout(tokens(4, 5), 1.0), "would drop all 4 patches"),
        (lambda: nn.PatchDropout(prefix=-1), "prefix has to be at least 0"),
        (lambda: nn.PatchDropout(1.5), "between 0 and 1, but got 1.5"),
        (lambda: F.hidden_cut(tokens(4)), "hidden_cut needs tokens"),
        (lambda: F.hidden_cut(tokens(4, 5), -0.1), "between 0 and 1"),
        (
            lambda: F.drop(tokens(4, 5), presets.token_dropout()),
            "needs a tensor of 3 axes, but got one of 2",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
