"""Models with tensors that are not dense: they are checked, or listed as unchecked."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thinned
from thinned.checks.live import record

from ...tensor_kinds import KINDS, dense, of_kind


class Passes(nn.Module):
    """A linear layer behind F.dropout, which L1 finds; another tensor passes through."""

    def __init__(self, tensor=None, where="input"):
        super().__init__()
        self.net = nn.Linear(4, 3)
        if where == "parameter":
            self.kept = nn.Parameter(tensor)
        elif where == "buffer":
            self.register_buffer("kept", tensor)

    def forward(self, x, other=None):
        return F.dropout(self.net(x), 0.5), getattr(self, "kept", other)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("where", ["input", "parameter", "buffer"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_is_checked_or_listed(kind, where):
    x, tensor = dense(8, 4), of_kind(kind)
    if kind == "meta" and where != "input":
        with pytest.raises(thinned.InputError, match="on the meta device and holds no values"):
            thinned.check(Passes(tensor, where), x)
        return
    model = Passes(tensor, where)
    found = thinned.check(model, x, *([tensor] if where == "input" else []), samples=4)
    assert found.codes == {"L1"}
    if kind == "meta":
        assert "input 1 (meta)" in dict(found.unchecked)["L19"]
        assert "no values" in dict(found.unchecked)["L19"]
    if where == "input" and kind not in ("meta", "mkldnn"):
        assert "L30" in dict(found.unchecked)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_that_draw_on_every_kind(kind):
    """The layer draws on the values where torch's dropout does not take the tensor."""

    class ValueDropout(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = 0.5

        def forward(self, x):
            if not self.training:
                return x
            return on_values(x, lambda v: F.dropout(v, self.p))

    found = thinned.check(nn.Sequential(ValueDropout()), of_kind(kind), samples=4)
    assert found.codes <= {"L14"}
    why = dict(found.unchecked)["L20"]
    assert kind_name(kind) in why


def on_values(x, function):
    if x.device.type == "meta" or x.is_nested:
        return function(x)
    if x.layout == torch.sparse_coo:
        x = x.coalesce()
        return torch.sparse_coo_tensor(
            x.indices(), function(x.values()), x.shape, is_coalesced=True
        )
    if x.layout in (torch.sparse_csr, torch.sparse_bsr):
        make = torch.sparse_compressed_tensor
        values = function(x.values())
        return make(x.crow_indices(), x.col_indices(), values, x.shape, layout=x.layout)
    if x.layout == torch.sparse_csc:
        values = function(x.values())
        return torch.sparse_csc_tensor(x.ccol_indices(), x.row_indices(), values, x.shape)
    return function(x.to_dense()).to_mkldnn()


def kind_name(kind):
    return {
        "coo": "sparse_coo",
        "csr": "sparse_csr",
        "csc": "sparse_csc",
        "bsr": "sparse_bsr",
        "jagged": "nested",
    }.get(kind, kind)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "meta"])
def test_digests_are_those_of_the_values(kind):
    x = of_kind(kind)
    y = on_values(x, lambda v: v * 2)
    assert record.digest(x) == record.digest(x.clone())
    assert record.digest((x, 3)) == record.digest([x.clone()])
    assert record.digest(x) != record.digest(y)
    if kind in ("coo", "csr"):  # the same values at other places
        moved = of_kind(kind, transposed=True)
        assert record.digest(x) != record.digest(moved)


def test_sparse_gradients_are_compared():
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Dropout(0.5), nn.Linear(4, 2))
    found = thinned.check(model, torch.arange(8), samples=4)
    assert found == ()
    assert "L30" not in dict(found.unchecked)


def test_a_sparse_product_is_checked():
    """A graph convolution: a sparse adjacency matrix as input and as buffer."""

    class Graph(nn.Module):
        def __init__(self, adjacency=None):
            super().__init__()
            self.register_buffer("adjacency", adjacency)
            self.net, self.dropout = nn.Linear(4, 3), nn.Dropout(0.5)

        def forward(self, x, adjacency=None):
            adjacency = self.adjacency if adjacency is None else adjacency
            return torch.sparse.mm(adjacency, self.net(self.dropout(x)))

    x = dense(8, 4)
    for layout in ("coo", "csr"):
        adjacency = of_kind(layout, rows=8, columns=8)
        assert thinned.check(Graph(), x, adjacency, samples=4) == ()
        assert thinned.check(Graph(adjacency), x, samples=4) == ()


class OwnEval(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.4), nn.Linear(8, 2))

    def forward(self, x):
        return self.net(x)

    def eval(self):
        self.training = False  # and not the children
        return self


def test_an_eval_that_does_not_reach_the_children():
    (finding,) = thinned.check(OwnEval(), dense(8, 4), samples=4)
    assert (finding.code, finding.site) == ("L1", "net.1")
    assert finding.message.endswith("eval() of the model leaves it in training mode")
    assert thinned.check(OwnEval().net, dense(8, 4), samples=4) == ()
