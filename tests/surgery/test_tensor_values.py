"""find, strip and what they compare, on tensors of every layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned
from thinned.surgery import tensor_values as tv

from ..tensor_kinds import KINDS, dense, of_kind

WITH_VALUES = [k for k in KINDS if k != "meta"]


@pytest.mark.parametrize("kind", WITH_VALUES)
def test_values_are_compared(kind):
    x = of_kind(kind)
    assert not tv.is_dense(x)
    assert tv.equal_tensors(x, x.clone())
    assert tv.close_tensors(x, x.clone())
    other = of_kind(kind, transposed=True)
    assert not tv.equal_tensors(x, other)
    assert not tv.close_tensors(x, other)
    assert tv.largest_gap(x, x.clone()) == 0.0
    assert tv.largest_gap(x, other) > 0.0
    assert not tv.equal_tensors(x, dense(6, 4))
    copy = x.clone()
    tv.write_tensor(copy, other)
    assert tv.equal_tensors(copy, other)


@pytest.mark.parametrize("kind", ["coo", "csr", "csc", "bsr"])
def test_stored_values_that_are_dropped_are_counted(kind):
    """Dropped to a stored 0, or no longer stored: the same count, the same largest difference."""
    x = dense(6, 4).abs() * (dense(6, 4) > 0)
    y = x.clone()
    y[:3] = 0
    wanted = (int((x[:3] != 0).sum()), int((x != 0).sum()))
    layout = {"coo": "to_sparse", "csr": "to_sparse_csr", "csc": "to_sparse_csc"}

    def sparse(t):
        return t.to_sparse_bsr((2, 2)) if kind == "bsr" else getattr(t, layout[kind])()

    assert tv.count_dropped(sparse(x), sparse(y)) == wanted
    assert tv.largest_gap(sparse(x), sparse(y)) == pytest.approx(float(x[:3].max()))
    assert tv.largest_gap(sparse(y), sparse(x)) == pytest.approx(float(x[:3].max()))


def test_meta_holds_nothing_to_compare():
    x = of_kind("meta")
    assert tv.value_parts(x) is None
    assert tv.count_dropped(x, x) == tv.count_zeros(x) == (0, 0)
    assert tv.equal_tensors(x, x.clone())
    assert not tv.equal_tensors(x, torch.zeros(6, 4))


class Net(nn.Module):
    """Drops the values of any tensor, in a layer and in a function."""

    def __init__(self, kept=None, where=""):
        super().__init__()
        self.dropout, self.net = nn.Dropout(0.5), nn.Linear(4, 3)
        if where == "buffer":
            self.register_buffer("kept", kept)
        elif where == "parameter":
            self.kept = nn.Parameter(kept)

    def forward(self, x, other=None):
        y = F.dropout(self.net(self.dropout(x)), 0.3, self.training)
        return y, getattr(self, "kept", other)


@pytest.mark.parametrize("where", ["input", "buffer", "parameter"])
@pytest.mark.parametrize("kind", KINDS)
def test_find_and_strip_with_every_kind(kind, where):
    x, tensor = dense(8, 4), of_kind(kind)
    model = Net(tensor, where)
    inputs = (x, tensor) if where == "input" else (x,)
    sites = thinned.find(model, *inputs)
    assert [(s.function, s.rate, s.in_eval) for s in sites] == [
        ("F.dropout", 0.5, False),
        ("F.dropout", 0.3, False),
    ]
    edits = thinned.strip(model, *inputs)
    assert not edits.notes
    assert not [s for s in thinned.find(model, *inputs) if s.in_train]
    edits.undo()
    assert len(thinned.find(model, *inputs)) == 2
    if where != "input":
        assert tv.equal_tensors(model.kept, tensor)


@pytest.mark.parametrize("kind", ["nested", "jagged", "meta"])
@pytest.mark.parametrize("ours", [False, True])
def test_kinds_that_dropout_takes(kind, ours):
    """The dropout itself runs on the tensor: rate, shape and share are read where there are any."""
    layer = thinned.nn.Dropout(0.5) if ours else nn.Dropout(0.5)
    if ours and kind != "meta":
        pytest.skip("our layers say what they take in tests/nn")
    model = nn.Sequential(nn.Linear(4, 3), layer)
    if kind == "meta":
        model = model.to("meta")
    x = of_kind(kind)
    (site,) = thinned.find(model, x)
    assert (site.rate, site.in_train, site.in_eval) == (0.5, True, False)
    assert (site.measured is None) == (kind == "meta")
    assert site.shape == ((6, 3) if kind == "meta" else None)
    edits = thinned.strip(model, x)
    assert not edits.notes
    assert layer.p == 0


def test_an_input_that_still_draws_on_meta_is_noted():
    class Draws(nn.Module):
        def forward(self, x):
            return x * torch.rand_like(x)

    edits = thinned.strip(Draws(), of_kind("meta"))
    assert len(edits.notes) == 1
    assert edits.notes[0].startswith("torch.rand_like at ")
    assert edits.notes[0].endswith(" still draws")


@pytest.mark.parametrize("kind", ["nested", "jagged"])
def test_attention_over_nested_tensors(kind):
    class Attention(nn.Module):
        def forward(self, x):
            x = x.unflatten(-1, (2, 2)).transpose(1, 2) if kind == "jagged" else x
            return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * self.training)

    sites = thinned.find(Attention(), of_kind(kind))
    assert [s.kind for s in sites][:1] == ["attention"]
