"""The signatures, errors and edge behavior of torch, checked against torch itself."""

from __future__ import annotations

import inspect
import math
import warnings

import pytest
import torch
from torch.nn import functional as TF

from thinned import InputError, Key, presets
from thinned import functional as F

NAMES = ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"]
INPUTS = {
    "dropout1d": (2, 3, 4),
    "dropout2d": (2, 3, 4, 5),
    "dropout3d": (2, 3, 4, 5, 6),
    "feature_alpha_dropout": (2, 3, 4),
}


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_torchs(name):
    ours, theirs = (inspect.signature(getattr(m, name)).parameters for m in (F, TF))
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values()
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_bad_rate_has_torchs_text(name, p):
    x = torch.ones(INPUTS.get(name, (2, 3)))
    with pytest.raises(ValueError, match="dropout probability") as theirs:
        getattr(TF, name)(x, p, training=True)
    with pytest.raises(ValueError, match="dropout probability") as ours:
        getattr(F, name)(x, p, training=True)
    assert str(ours.value).startswith(str(theirs.value))


def test_nan_rate_is_an_error():
    with pytest.raises(ValueError, match="finite number, but got nan"):
        F.dropout(torch.ones(3), math.nan)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_and_zero_rate_return_the_input(name):
    x = torch.randn(INPUTS.get(name, (2, 3)))
    assert getattr(F, name)(x, 0.5, training=False) is x
    assert getattr(F, name)(x, 0.0, training=True) is x


@pytest.mark.parametrize("name", NAMES)
def test_full_rate_gives_zeros(name):
    x = torch.full(INPUTS.get(name, (2, 3)), math.nan)
    assert torch.equal(getattr(F, name)(x, 1.0, training=True), torch.zeros_like(x))


@pytest.mark.parametrize("name", NAMES)
def test_distribution_is_torchs(name):
    """The values that occur, and how often, against torch (z test, alpha 1e-6)."""
    shape = (400, 50, *INPUTS.get(name, (2, 3))[2:])
    ours, theirs = (getattr(m, name)(torch.ones(shape), 0.3, training=True) for m in (F, TF))
    torch.testing.assert_close(ours.unique(), theirs.unique())
    cells = math.prod(shape) if name in ("dropout", "alpha_dropout") else 400 * 50
    a, b = ((y < ours.mean()).float().mean().item() for y in (ours, theirs))
    assert abs(a - b) < 4.9 * math.sqrt(2 * 0.21 / cells)


@pytest.mark.parametrize("name", NAMES)
def test_inplace_writes_into_the_input(name):
    x = torch.ones(INPUTS.get(name, (4, 5)))
    y = getattr(F, name)(x, 0.5, training=True, inplace=True)
    assert y is x
    assert not torch.equal(x, torch.ones_like(x))


@pytest.mark.parametrize(("name", "shape"), [("dropout1d", (30, 4)), ("dropout3d", (30, 2, 2, 2))])
def test_unbatched(name, shape):
    x = torch.ones(shape)
    y = getattr(F, name)(x, 0.5, inplace=True)
    assert y is x
    assert set(y.flatten(1).mean(1).tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("rank", range(7))
@pytest.mark.parametrize("name", NAMES)
def test_ranks_as_torch_reads_them(name, rank):
    """The same ranks are taken, refused or warned of, in texts that begin as those of torch."""
    x = torch.ones([30, 20, 2, 2, 2, 2][:rank])
    texts, results = [], []
    for module in (TF, F):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                results.append(getattr(module, name)(x, 0.5, training=True))
                error = ""
            except RuntimeError as raised:
                error = str(raised)
        texts.append((error, str(caught[0].message) if caught else ""))
    (error, warning), (our_error, our_warning) = texts
    assert bool(our_error) == bool(error)
    begin = "Feature dropout requires at least 2 dimensions in the input"
    if name == "dropout1d" and rank != 1 and rank != 0:
        begin = error.partition(". ")[0]
    assert not error or begin in our_error
    assert not error or our_error.startswith(f"{name}: ")
    if error:
        return
    assert bool(our_warning) == bool(warning)
    end = ", where C" if "(N, C, L)" in warning else ", which is"
    assert our_warning.startswith(warning.partition(end)[0])
    torch.testing.assert_close(results[1].unique(), results[0].unique())
    # elements that share a draw: constant along the same axes
    for axis in range(rank):
        flat = [bool((y == y.narrow(axis, 0, 1)).all()) for y in results]
        assert flat[0] == flat[1]


def test_manual_seed_decides():
    x = torch.ones(100)
    torch.manual_seed(0)
    a, b = F.dropout(x), F.dropout(x)
    torch.manual_seed(0)
    assert torch.equal(a, F.dropout(x))
    assert not torch.equal(a, b)


def test_checkpointing_sees_the_same_mask():
    from torch.utils.checkpoint import checkpoint

    def gradient(use):
        torch.manual_seed(3)
        x = torch.linspace(-1, 1, 200).requires_grad_()
        f = lambda t: F.dropout(t.sin(), 0.5).square()  # noqa: E731
        (checkpoint(f, x, use_reentrant=False) if use else f(x)).sum().backward()
        return x.grad

    assert torch.equal(gradient(True), gradient(False))


def test_complex_and_integers():
    y = F.dropout(torch.full((100,), 1 + 2j), 0.5)
    assert {complex(v) for v in y.tolist()} == {0j, 2 + 4j}
    with pytest.raises(
        InputError, match=r"needs a floating-point tensor, but got torch.int64; write x.float\(\)"
    ):
        F.dropout(torch.arange(3))
    assert F.dropout(torch.arange(3), training=False).tolist() == [0, 1, 2]


def test_scalars_and_empty():
    assert F.dropout(torch.tensor(3.0)).item() in (0.0, 6.0)
    empty = torch.empty(0, 3)
    assert F.dropout(empty) is empty


COMPILED = {
    "dropout": (F.dropout, (8, 32)),
    "dropout1d": (F.dropout1d, (8, 32, 3)),
    "dropout2d": (F.dropout2d, (8, 32, 3, 2)),
    "dropout3d": (F.dropout3d, (8, 32, 3, 2, 2)),
    "alpha_dropout": (F.alpha_dropout, (8, 32)),
    "feature_alpha_dropout": (F.feature_alpha_dropout, (8, 32, 3)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_functions_are_one_graph_and_draw_as_eager_ones(name):
    function, shape = COMPILED[name]
    x = torch.rand(shape) + 1
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    # each rate has a graph, as for torch's functions; torch.compile makes at most 8
    for p, training in ((0.5, True), (0.25, True), (0.0, True), (1.0, True), (0.5, False)):
        torch.manual_seed(1)
        expected = [function(x, p, training), function(x, p, training)]
        torch.manual_seed(1)
        drawn = [compiled(x, p, training), compiled(x, p, training)]
        torch.testing.assert_close(drawn, expected)
        assert torch.equal(*drawn) == (not training or p in (0.0, 1.0))
    in_place = x.clone()
    torch.manual_seed(1)
    assert compiled(in_place, 0.5, True, True) is in_place
    torch.manual_seed(1)
    torch.testing.assert_close(in_place, function(x, 0.5, True))
    with pytest.raises(Exception, match="dropout probability has to be between 0 and 1"):
        compiled(x, 1.5)


@pytest.mark.parametrize("spec", [presets.dropout(0.3), presets.gaussian_dropout(0.3)])
def test_compiled_drop_with_and_without_a_key(spec):
    x, key = torch.rand(4, 9) + 1, Key(3, samples=[7, 8, 9, 2])
    compiled = torch.compile(
        lambda x, key=None: F.drop(x, spec, key=key), backend="aot_eager", fullgraph=True
    )
    tensors = F.resolve_key(key)
    torch.testing.assert_close(compiled(x, tensors), F.drop(x, spec, key=key))
    assert not torch.equal(compiled(x), compiled(x))
    with pytest.raises(Exception, match="samples has to name each of the 4 examples"):
        compiled(x, F.resolve_key(Key(3, samples=[1])))
