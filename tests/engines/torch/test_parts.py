"""Parts of weights: native copies compared with ``index_select``, and native subsets with torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from thinned import functional as F
from thinned.algebra import Key
from thinned.engines.torch import dispatch, ops, parts

needs_parts = pytest.mark.skipif(not ops.has_parts, reason="built without these kernels")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CPU = torch.device("cpu")
# weight shape, kept rows, kept units of the columns, elements of a unit
CASES = {
    "both": ((7, 9), [0, 3, 6], [1, 2, 8], 1),
    "rows": ((7, 9), [2], None, 1),
    "columns": ((7, 9), None, [0, 8], 1),
    "units": ((5, 12), [1, 4], [0, 2], 3),
    "conv": ((6, 4, 3, 2), [0, 5], [1, 3], 6),
    "no rows": ((6, 4, 3), [], [1, 3], 3),
    "no columns": ((6, 4), [1, 2], [], 1),
    "wide": ((70, 900), list(range(0, 70, 3)), list(range(1, 900, 2)), 1),
}


def listed(indices):
    return None if indices is None else torch.tensor(indices, dtype=torch.int64)


def selected(weight, bias, rows, columns, block):
    """The same by torch: a unit's elements are consecutive in the row."""
    flat = weight.flatten(1)
    if rows is not None:
        flat, bias = flat.index_select(0, rows), bias.index_select(0, rows)
    if columns is not None:
        every = (columns[:, None] * block + torch.arange(block)).flatten()
        flat = flat.index_select(1, every)
    trailing = weight.shape[2:]
    return flat.reshape(len(flat), flat.shape[1] // trailing.numel(), *trailing), bias


@needs_parts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_parts_and_gradients_are_those_of_index_select(case, dtype):
    shape, rows, columns, block = CASES[case]
    rows, columns = listed(rows), listed(columns)
    torch.manual_seed(0)
    weight, bias = torch.randn(shape).to(dtype), torch.randn(shape[0]).to(dtype)
    results = []
    for run in (parts.gather, selected):
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        part, offset = run(w, b, rows, columns, block)
        torch.manual_seed(1)
        upstream = [torch.randn(t.shape).to(dtype) for t in (part, offset)]
        gradients = torch.autograd.grad([part, offset], [w, b], upstream)
        results.append([part, offset, *gradients])
    for seen, right in zip(*results, strict=True):
        assert seen.dtype == right.dtype
        assert torch.equal(seen, right)


@needs_parts
def test_first_and_second_derivatives():
    rows, columns = torch.tensor([0, 2]), torch.tensor([1, 3])
    weight = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def run(w, b):
        part, offset = parts.gather(w, b, rows, columns, 2)
        return part.square().sum() * offset.sin()

    assert torch.autograd.gradcheck(run, [weight, bias])
    assert torch.autograd.gradgradcheck(run, [weight, bias])


@needs_parts
def test_only_what_needs_a_gradient_gets_one():
    rows = torch.tensor([0, 2])
    weight, bias = torch.randn(3, 4, requires_grad=True), torch.randn(3)
    part, offset = parts.gather(weight, bias, rows, None, 1)
    (gradient,) = torch.autograd.grad(part.sum() + offset.sum(), [weight])
    assert gradient.sum(1).tolist() == [4.0, 0.0, 4.0]
    part, same = parts.gather(weight, bias, None, torch.tensor([1]), 1)
    assert same is bias
    assert part.shape == (3, 1)


@needs_parts
@pytest.mark.parametrize("rows", [[2, 1], [1, 1], [-1, 0], [1, 3]])
def test_lists_that_do_not_ascend_within_the_matrix_are_refused(rows):
    with pytest.raises(RuntimeError, match="kept units have to ascend"):
        ops.gather_part(torch.ones(3, 3), torch.tensor(rows), None, 1)
    with pytest.raises(RuntimeError, match="kept units have to ascend"):
        ops.scatter_part(torch.ones(3, 2), None, torch.tensor(rows), 3, 3, 1)


@needs_parts
def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match="block has to divide"):
        ops.gather_part(torch.ones(3, 4), None, torch.tensor([0]), 3)
    with pytest.raises(RuntimeError, match="the part has to be"):
        ops.scatter_part(torch.ones(3, 2), None, torch.tensor([0]), 3, 4, 1)
    with pytest.raises(RuntimeError, match="contiguous matrices"):
        ops.gather_part(torch.ones(3, 4).T, torch.tensor([0]), None, 1)


def by_torch(rows, n, count, key):
    """The definition: the smallest uniform numbers, of equal ones the first."""
    drawn = F.uniform((rows, n), key, torch.empty(0, dtype=torch.float64))
    order = drawn.sort(dim=1, stable=True).indices
    return order[:, :count].sort(dim=1).values


KEYS = {
    "seed": Key(3),
    "step": Key(2**63 + 5, step=7, stream=2**64 - 3, call=4),
    "ids": Key(1, samples=[9, 2**40, 0]),
    "steps": Key(1, step=[4, 5, 6], samples=[9, 2**40, 0]),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize(("n", "count"), [(1, 1), (5, 0), (5, 5), (40, 13), (1000, 500)])
def test_subsets_are_the_smallest_words(name, n, count):
    for _ in range(2):
        seen = F.random_subset(3, n, count, KEYS[name], CPU)
        assert torch.equal(seen, by_torch(3, n, count, KEYS[name]))


@needs_parts
def test_subsets_of_every_instruction_set(instructions):
    seen = F.random_subset(3, 1000, 300, KEYS["steps"], CPU)
    assert torch.equal(seen, by_torch(3, 1000, 300, KEYS["steps"]))


def test_subsets_in_torch_operations(monkeypatch):
    monkeypatch.setattr(dispatch, "_DEFAULT", "reference")
    seen = F.random_subset(3, 1000, 300, KEYS["steps"], CPU)
    monkeypatch.undo()
    assert torch.equal(seen, by_torch(3, 1000, 300, KEYS["steps"]))


def test_without_the_kernels_results_are_the_same():
    """In another process, with THINNED_IMPL=reference: torch operations for draws and copies."""
    code = """
import torch, thinned
torch.manual_seed(0)
layers = torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
model = torch.nn.Sequential(*layers).double()
thinned.thin(model, always=True)
thinned.key(model, seed=1).at(2)
y = model(torch.ones(3, 6, dtype=torch.float64)).sum()
y.backward()
print(y.item(), model[2].weight.grad.flatten().tolist())
"""
    outputs = set()
    for impl in ("auto", "reference"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "THINNED_IMPL": impl},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
