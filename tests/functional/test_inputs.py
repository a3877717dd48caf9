"""Inputs that are no dense tensors: the right result with the structure kept, or an error."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from thinned import InputError, Key, presets
from thinned import functional as F
from thinned.algebra import Drop
from thinned.algebra.law import Bernoulli

from ..tensor_kinds import of_kind

# what torch says when such tensors are made
pytestmark = pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors:UserWarning",
    "ignore:Sparse .* tensor support is in beta state:UserWarning",
    "ignore:Sparse invariant checks are implicitly disabled:UserWarning",
)
KEY = Key(seed=5, step=2, samples=torch.tensor([3, 1, 4, 1 << 40, 5, 9]))
# keeps zeros: every element, every row, every column, and noise that drops nothing
SPECS = {
    "element": presets.dropout(0.4),
    "classic": presets.dropout(0.4, "classic"),
    "example": presets.drop_path(0.5),
    "shared": Drop(Bernoulli(0.5), per="c", of="b c"),
    "gaussian": presets.gaussian_dropout(0.4),
    "uniform": presets.uniform_dropout(0.4),
    "all": presets.dropout(1.0),
}
SPARSE = ("coo", "csr", "csc")


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("name", SPECS)
def test_sparse_tensors_have_the_mask_of_the_dense_one(name, kind):
    x = of_kind(kind)
    y = F.drop(x, SPECS[name], key=KEY)
    assert y.layout is x.layout
    assert len(y.values()) == len(x.values())  # the structure: dropped values are stored zeros
    torch.testing.assert_close(y.to_dense(), F.drop(x.to_dense(), SPECS[name], key=KEY))
    assert not torch.equal(y.to_dense(), x.to_dense())
    mean = F.drop(x, SPECS[name], mode="mean")
    torch.testing.assert_close(mean.to_dense(), F.drop(x.to_dense(), SPECS[name], mode="mean"))


@pytest.mark.parametrize("kind", SPARSE)
def test_gradients_of_sparse_tensors_are_those_of_the_dense_one(kind):
    x = of_kind(kind).double()
    grads = []
    for dense in (False, True):
        values = (x.coalesce() if kind == "coo" else x).values().clone().requires_grad_()
        if kind == "coo":
            rebuilt = torch.sparse_coo_tensor(x.coalesce().indices(), values, x.shape)
        else:
            by_row = kind == "csr"
            pointers = x.crow_indices() if by_row else x.ccol_indices()
            others = x.col_indices() if by_row else x.row_indices()
            rebuilt = torch.sparse_compressed_tensor(
                pointers, others, values, x.shape, layout=x.layout
            )
        rebuilt = rebuilt.to_dense() if dense else rebuilt
        y = F.drop(rebuilt, SPECS["element"], key=KEY).to_dense()
        grads.append(torch.autograd.grad(y.square().sum(), values)[0])
    torch.testing.assert_close(*grads)
    assert grads[0].any()


def test_entries_of_coo_that_repeat_are_one_element():
    indices, values = torch.tensor([[0, 0, 1], [1, 1, 0]]), torch.tensor([1.0, 2.0, 4.0])
    x = torch.sparse_coo_tensor(indices, values, (2, 3))
    key = Key(seed=1)
    expected = F.drop(x.to_dense(), SPECS["element"], key=key)
    assert torch.equal(F.drop(x, SPECS["element"], key=key).to_dense(), expected)


def test_coo_with_dense_axes_and_steps_of_each_example():
    x = torch.randn(4, 3, 5, 2).to_sparse(2)
    key = Key(seed=1, step=torch.tensor([0, 7, 7, 1]), samples=torch.tensor([1, 1, 2, 2]))
    for spec in (SPECS["element"], presets.spatial_dropout(0.5)):
        y = F.drop(x, spec, key=key)
        assert (y.sparse_dim(), y.dense_dim()) == (2, 2)
        torch.testing.assert_close(y.to_dense(), F.drop(x.to_dense(), spec, key=key))


def test_dropping_everything_of_infinite_values_gives_zeros():
    x = torch.full((2, 2), torch.inf).to_sparse()
    assert not F.drop(x, SPECS["all"]).to_dense().any()


def test_an_unkeyed_draw_of_a_sparse_tensor_follows_the_generator():
    x = torch.ones(30, 40).to_sparse_csr()
    torch.manual_seed(0)
    first, second = F.dropout(x), F.dropout(x)
    torch.manual_seed(0)
    assert torch.equal(F.dropout(x).values(), first.values())
    assert not torch.equal(first.values(), second.values())
    assert set(first.values().tolist()) == {0.0, 2.0}


PARTS = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (3, 5, 2)]
RAGGED = {
    "element": presets.dropout(0.4),
    "alpha": presets.alpha_dropout(0.4),
    "locked": presets.locked_dropout(0.5),
    "path": presets.drop_path(0.5),
    "shared": Drop(Bernoulli(0.5), per="t d", of="b t d"),
    "gaussian": presets.gaussian_dropout(0.4),
}


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
@pytest.mark.parametrize("name", RAGGED)
@pytest.mark.parametrize("ids", [None, torch.tensor([7, 3, 8])])
def test_nested_tensors_have_the_masks_of_the_padded_batch(name, layout, ids):
    """And gradients: in float64, against those of the padded batch at the same places."""
    key, spec = Key(seed=2, samples=ids), RAGGED[name]
    leaves = [part.double().requires_grad_() for part in PARTS]
    x = torch.nested.as_nested_tensor(leaves, layout=layout)
    y = F.drop(x, spec, key=key)
    assert y.layout is x.layout
    assert y.is_nested
    padded = torch.nn.utils.rnn.pad_sequence(leaves, batch_first=True)
    expected = F.drop(padded, spec, key=key)
    parts = list(y.unbind())
    for ours, theirs, leaf in zip(parts, expected, leaves, strict=True):
        torch.testing.assert_close(ours, theirs[: len(leaf)])
    grads = torch.autograd.grad(sum(part.square().sum() for part in parts), leaves)
    inside = [theirs[: len(leaf)] for theirs, leaf in zip(expected, leaves, strict=True)]
    wanted = torch.autograd.grad(sum(part.square().sum() for part in inside), leaves)
    torch.testing.assert_close(grads, wanted)


def test_a_jagged_result_has_the_offsets_of_its_input():
    x = of_kind("jagged")
    total = (F.dropout(x, 0.5) + x).values()  # torch refuses two different ragged structures
    assert total.shape == x.values().shape


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: F.dropout(of_kind("bsr")), r"but got layout torch.sparse_bsr; write x.to_dense"),
        (lambda: F.dropout(of_kind("mkldnn")), r"but got layout torch._mkldnn; write x.to_dense"),
        (lambda: F.alpha_dropout(of_kind("csr"), training=True), "does not map zeros to zeros"),
        (lambda: F.dropout(of_kind("coo"), inplace=True), "inplace=True needs a dense tensor"),
        (lambda: F.dropout(of_kind("jagged"), inplace=True), "inplace=True needs a dense tensor"),
        (lambda: F.dropout(of_kind("coo").int()), r"needs a floating-point .* write x.float\(\)"),
        (
            lambda: F.drop(of_kind("jagged"), presets.drop_block(0.1, 2)),
            "counts over the batch.* pad it: torch.nested.to_padded_tensor",
        ),
        (
            lambda: F.drop(of_kind("jagged"), presets.dropout(0.5), key=KEY),
            "each of the 2 examples of the nested tensor, but got 6 ids",
        ),
        (
            lambda: F.dropout(torch.nested.nested_tensor([torch.ones(2, 3)] * 2).transpose(1, 2)),
            None,
        ),
        (
            lambda: F.dropout(of_kind("jagged").transpose(1, 2)),
            r"its ragged axis after the examples; write x.contiguous\(\)",
        ),
    ],
)
def test_other_layouts_are_right_or_refused(run, message):
    if message is None:
        assert set(torch.cat([t.flatten() for t in run().unbind()]).tolist()) <= {0.0, 2.0}
        return
    with pytest.raises(InputError, match=message):
        run()


PACKED = pack_sequence([torch.ones(3, 4), torch.ones(2, 4)])
VALUES = [PACKED, (torch.ones(3, 4),), [1.0, 2.0], None, np.ones((3, 4)), 3.0, "x"]
TORCHS = ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"]
TORCHS += ["feature_alpha_dropout"]


@pytest.mark.parametrize("name", TORCHS)
@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("training", [True, False])
def test_a_value_that_is_no_tensor_is_torchs_type_error(name, value, training):
    with pytest.raises(TypeError) as ours:
        getattr(F, name)(value, 0.5, training)
    assert isinstance(ours.value, InputError)
    if name[-1] == "d":  # torch has no check there: "object has no attribute 'dim'"
        name = "dropout"
    with pytest.raises(TypeError) as theirs:
        getattr(torch.nn.functional, name)(value, 0.5, training)
    text = str(theirs.value).splitlines()[0].replace(" (position 1)", "").replace("numpy.", "")
    assert str(ours.value).partition("; ")[0].partition("(): ")[2] == text.partition("(): ")[2]


def functions_of_tensors():
    for name in F.__all__:
        function = getattr(F, name)
        parameters = inspect.signature(function).parameters.values()
        first = next(iter(parameters), None)
        if inspect.isfunction(function) and first is not None and first.annotation == "Tensor":
            yield name


# what takes tensors of other layouts, tested above
TAKE_OTHERS = {*TORCHS, "drop", "explain"}


@pytest.mark.parametrize("name", sorted(functions_of_tensors()))
def test_every_function_refuses_what_it_cannot_take(name):
    """By the name of its first argument, before anything else about the call is looked at."""
    function = getattr(F, name)
    parameters = inspect.signature(function).parameters
    first = next(iter(parameters))
    needed = [
        torch.ones(3, 4)
        for parameter in list(parameters.values())[1:]
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if name == "drop":
        needed = [presets.dropout(0.5)]
    for value in VALUES:
        with pytest.raises(TypeError, match=rf"{name}\(\): argument '{first}' must be Tensor, not"):
            function(value, *needed)
    if name in TAKE_OTHERS:
        return
    for kind in ("coo", "csr", "nested", "jagged", "mkldnn"):
        with pytest.raises(InputError, match=f"argument '{first}' must be a dense tensor, but got"):
            function(of_kind(kind), *needed)
