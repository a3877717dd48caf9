"""DropEdge, DropNode, DropMessage and the renormalized adjacency against dense algebra and against
each other.
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
from thinned.algebra import Bernoulli, Drop, Key, Linear


def both(pairs):
    """Both directions of every pair of nodes."""
    pairs = torch.tensor(pairs).T
    return torch.cat((pairs, pairs.flip(0)), 1)


RING = both([(i, (i + 1) % 400) for i in range(400)])
SMALL = both([(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)])


def dense(edge_index, nodes, weight=None):
    weight = torch.ones(edge_index.shape[1], dtype=torch.float64) if weight is None else weight
    return torch.zeros(nodes, nodes, dtype=torch.float64).index_put(
        tuple(edge_index), weight, accumulate=True
    )


def test_each_edge_has_its_own_draw():
    attributes, p = torch.randn(800, 3), 0.3
    kept_edges, kept, filtered = F.drop_edge(RING, attributes, p=p, key=Key(2))
    assert torch.equal(kept, F.mask(Drop(Bernoulli(p), per="*", of="*"), (800,), Key(2)))
    assert torch.equal(kept_edges, RING[:, kept])
    assert torch.equal(filtered, attributes[kept])
    assert abs(kept.double().mean() - 0.7) < 4.9 * math.sqrt(0.21 / 800)  # alpha 1e-6
    assert not torch.equal(kept[:400], kept[400:])
    for examples in (torch.arange(3), torch.arange(800) + 7):  # the draws are keyed by the call
        assert torch.equal(F.drop_edge(RING, p=p, key=Key(2, samples=examples))[1], kept)
    whole, every, same = F.drop_edge(RING, attributes, p=p, training=False)
    assert whole is RING
    assert same is attributes
    assert every.all()
    assert F.drop_edge(RING, p=0.0)[0] is RING
    assert F.drop_edge(RING, p=1.0)[0].shape == (2, 0)
    assert F.drop_edge(RING[:, :0], p=0.5)[0].shape == (2, 0)


def test_directions_share_a_draw():
    order = torch.randperm(800)
    edges = RING[:, order]
    for exact in (False, True):
        left, kept = F.drop_edge(edges, p=0.4, undirected=True, exact=exact, key=Key(3))
        assert 0 < len(kept[kept]) < 800
        assert set(map(tuple, left.T.tolist())) == set(map(tuple, left.flip(0).T.tolist()))
        back = kept[order.argsort()]
        assert torch.equal(back[:400], back[400:])
    assert kept.sum() == 2 * 240
    loop = torch.tensor(
        [[0, 0, 0, 1], [0, 1, 1, 0]]
    )  # a self-loop, an edge, its copy and its direction back
    outcomes = {
        tuple(F.drop_edge(loop, p=0.5, undirected=True, key=Key(s))[1].tolist()) for s in range(40)
    }
    assert outcomes == {(a, b, b, b) for a in (True, False) for b in (True, False)}


def test_exact_counts_and_every_subset():
    for p, kept in ((0.2, 640), (0.9, 80), (0.999, 0), (0.3, 560)):
        assert F.drop_edge(RING, p=p, exact=True, key=Key(1))[1].sum() == kept
    edges = SMALL[:, :5]
    seen = Counter(
        tuple(F.drop_edge(edges, p=0.4, exact=True, key=Key(s))[1].tolist()) for s in range(2000)
    )
    assert len(seen) == 10
    assert (
        sum((n - 200) ** 2 / 200 for n in seen.values()) < 46
    )  # 9 degrees of freedom: alpha 1e-6 is 45.1
    a = F.drop_edge(edges, p=0.4, exact=True, key=Key(1, samples=torch.arange(9)))[1]
    assert torch.equal(a, F.drop_edge(edges, p=0.4, exact=True, key=Key(1))[1])


@pytest.mark.parametrize("weighted", [False, True])
def test_gcn_normalize_is_the_dense_formula(weighted):
    torch.manual_seed(0)
    directed = torch.randint(0, 7, (2, 20))  # with self-loops and copies
    for edges in (SMALL, directed, SMALL[:, :0]):
        weight = torch.rand(edges.shape[1], dtype=torch.float64) if weighted else None
        every, values = F.gcn_normalize(edges, 8, weight)  # node 7 is alone
        a = dense(edges, 8, weight) + torch.eye(8, dtype=torch.float64)
        root = a.sum(1).rsqrt()
        torch.testing.assert_close(
            dense(every, 8, values.double()), root[:, None] * a * root, rtol=1e-6, atol=1e-6
        )
        assert values.dtype == (torch.float64 if weighted else torch.float32)
        assert torch.equal(every[:, -8:], torch.arange(8).expand(2, 8))
    weight = torch.rand(10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: F.gcn_normalize(SMALL, 4, w)[1], weight)
    _, values = F.gcn_normalize(SMALL, 4, -torch.ones(10))
    assert not values.any()
    assert (
        F.gcn_normalize(SMALL, 4, torch.ones(10, dtype=torch.bfloat16))[1].dtype == torch.bfloat16
    )


def test_renormalized_after_dropping():
    """The order of the paper: drop, then normalize; the rows are those of the smaller graph."""
    edges, _ = F.drop_edge(SMALL, p=0.4, undirected=True, key=Key(5))
    every, values = F.gcn_normalize(edges, 4)
    a = dense(edges, 4) + torch.eye(4, dtype=torch.float64)
    normal = dense(every, 4, values.double())
    torch.testing.assert_close(normal, normal.T, rtol=1e-6, atol=1e-6)
    largest = torch.linalg.eigvalsh(normal).max()
    torch.testing.assert_close(
        largest, torch.ones((), dtype=torch.float64), rtol=1e-6, atol=1e-6
    )  # of any graph with loops
    assert (normal.diagonal() - 1 / a.sum(1)).abs().max() < 1e-6


def test_drop_node_drops_rows_and_keeps_the_mean_of_propagation():
    torch.manual_seed(0)
    x, p = torch.randn(4, 3, dtype=torch.float64), 0.4
    every, values = F.gcn_normalize(SMALL, 4)
    a = dense(every, 4, values.double())
    seen, mean = {}, torch.zeros(4, 3, dtype=torch.float64)
    for seed in range(400):
        y = F.drop(x, presets.drop_node(p), key=Key(seed))
        seen[tuple((y != 0).all(1).tolist())] = y
    assert len(seen) == 16
    for kept in itertools.product((True, False), repeat=4):
        y = seen[kept]
        torch.testing.assert_close(y, x * torch.tensor(kept)[:, None] / (1 - p))
        mean += math.prod(1 - p if k else p for k in kept) * (a @ y)
    torch.testing.assert_close(mean, a @ x, rtol=1e-8, atol=1e-8)
    key = Key(3, samples=torch.arange(4) + 9)
    assert torch.equal(
        F.drop(x, presets.drop_node(p), key=key), F.drop(x, presets.drop_node(p), key=Key(3))
    )


def test_drop_message_shares_draws_with_the_other_methods():
    """Sums of messages keep their mean; the variance is p / q sum(m^2), and grows where draws
    are shared.
    """
    torch.manual_seed(0)
    x, p, count = torch.randn(4, 3, dtype=torch.float64), 0.3, 6000
    source, target = SMALL

    def sums(messages):
        return torch.zeros(4, 3, dtype=torch.float64).index_add(0, target, messages)

    messages = x[source]
    drawn = torch.stack(
        [sums(F.drop(messages, presets.drop_message(p), key=Key(s))) for s in range(count)]
    )
    var = p / (1 - p) * sums(messages**2)
    assert (
        (drawn.mean(0) - sums(messages)).abs() < 5.3 * (var / count).sqrt()
    ).all()  # alpha 1e-6 over 12 sums
    fourth = ((drawn - sums(messages)) ** 4).mean(0)
    assert ((drawn.var(0) - var).abs() < 5.3 * ((fourth - var**2) / count).sqrt()).all()
    drawn_once = F.drop(messages, presets.drop_message(p), key=Key(1))
    assert torch.isclose(drawn_once, messages / (1 - p)).logical_or(drawn_once == 0).all()
    assert ((drawn_once == 0).any(1) & (drawn_once != 0).any(1)).any()  # elements, not rows
    whole = (
        F.drop(messages, presets.drop_node(p), key=Key(1))[:, 0] != 0
    )  # one draw for each edge: DropEdge, scaled
    assert torch.equal(whole, F.drop_edge(SMALL, p=p, key=Key(1))[1])


def test_layers():
    layer = nn.DropEdge(Linear(0.0, 1.0, 2), exact=True)
    key = thinned.key(layer)
    for step, kept in enumerate((800, 400, 0)):
        key.at(step)
        edges, mask, weight = layer(RING, torch.ones(800))
        assert edges.shape[1] == mask.sum() == len(weight) == kept
    assert nn.DropNode(0.2).p == 0.2
    node = nn.DropNode(0.5)
    y = node(torch.ones(200, 6))
    assert torch.equal(y, y[:, :1].expand(200, 6))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert nn.DropMessage(0.5).eval()(y) is y


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: F.drop_edge(RING.T),
            r"integers of shape \[2, edges\], but got torch.int64 \[800, 2\]",
        ),
        (lambda: F.drop_edge(RING.float()), "but got torch.float32"),
        (
            lambda: F.drop_edge(RING, 0.3),
            "tensors of 800 rows, one for each edge, but got 0.3; pass the rate as p=",
        ),
        (lambda: F.drop_edge(RING, torch.ones(2, 800)), r"but got \[2, 800\]"),
        (lambda: F.drop_edge(RING, p=1.2), "between 0 and 1"),
        (lambda: nn.DropEdge(-0.1), "between 0 and 1"),
        (lambda: F.gcn_normalize(RING, 399), "below the 399 nodes, but got 399"),
        (lambda: F.gcn_normalize(RING - 1, 400), "below the 400 nodes, but got -1"),
        (lambda: F.gcn_normalize(RING, 0), "nodes has to be at least 1"),
        (
            lambda: F.gcn_normalize(RING, 400, torch.ones(3)),
            r"weight has to be of shape \[800\].*but got \[3\]",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
