"""The operators under vmap give what a loop over the examples gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from thinned import presets
from thinned.algebra.plan import plan
from thinned.engines.torch import dispatch, ops

needs_kernels = pytest.mark.skipif(bool(ops.missing), reason=f"no kernels: {ops.missing}")
EXACT = {"rtol": 0.0, "atol": 0.0}
BATCH, ROWS, COLUMNS = 3, 4, 8
PLAN = plan(presets.dropout(0.4), (ROWS, COLUMNS))
CONSTANTS = dispatch.prepare(PLAN).constants


def _noise(key: Tensor, ids: Tensor) -> tuple[object, ...]:
    return CONSTANTS, key, ids, PLAN.strides, 0, 0, 0, 11, 2


def _map_into(x: Tensor, key: Tensor, ids: Tensor) -> Tensor:
    y = torch.full_like(x, torch.nan)
    ops.map_into(y, x, *_noise(key, ids), False)
    return y


def _map_in_place(x: Tensor, key: Tensor, ids: Tensor) -> Tensor:
    x = x.clone()
    ops.map_into(x, x, *_noise(key, ids), False)
    return x


def _blocks(x: Tensor, key: Tensor, ids: Tensor) -> Tensor:
    count = x.new_zeros(1, dtype=torch.int64) + 5
    sizes = [1, 2, 3], [1, 2, 2]
    is_dropped = ops.blocks(CONSTANTS, key, ids, ROWS, 2, True, *sizes, 11, 2, count)
    return torch.cat((is_dropped.flatten().to(torch.int64), count))


def _rows(ids: Tensor) -> Tensor:
    return ids[:2].remainder(2) + torch.tensor([0, 2])


OPERATORS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "map": lambda x, key, ids: ops.map(x, *_noise(key, ids), False),
    "apply": lambda x, key, ids: ops.apply(x, *_noise(key, ids), True),
    "factor": lambda x, key, ids: ops.factor(x, *_noise(key, ids)),
    "map_add": lambda x, key, ids: ops.map_add(x, 2 * x.flip(-1), *_noise(key, ids)),
    "map_into": _map_into,
    "map_into, in place": _map_in_place,
    "kept": lambda x, key, ids: ops.kept(CONSTANTS, key, ids, ROWS, COLUMNS, True, 0, 11, 2),
    "blocks": _blocks,
    "masked": lambda x, key, ids: ops.masked(x, x > 0, 2.0),
    "subset": lambda x, key, ids: ops.subset(key, ids, ROWS, 9, 3, 11, 2),
    "gather_part": lambda x, key, ids: ops.gather_part(x, _rows(ids), None, 1),
    "scatter_part": lambda x, key, ids: ops.scatter_part(x[:2], _rows(ids), None, 4, COLUMNS, 1),
}


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(BATCH, ROWS, COLUMNS, generator=generator)
    key = torch.tensor([[5, 0], [5, 1], [6, 1]])
    ids = torch.tensor([[0, 1, 2, 3], [4, 1, 9, 1 << 40], [3, 2, 1, 0]])
    return x, key, ids


@needs_kernels
def test_every_operator_has_a_case():
    defined = {
        name.removeprefix("thinned::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("thinned::")
    }
    cases = {name.partition(",")[0] for name in OPERATORS}
    assert defined - cases == {"instructions"}  # it takes no tensor


@needs_kernels
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("mapped", list(itertools.product((True, False), repeat=2)))
@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_is_the_loop(name, mapped, dim):
    """With the key, the ids, both or neither mapped, along any axis of the input."""
    function, (x, key, ids) = OPERATORS[name], _inputs()
    keys, samples = (
        t if m else t[:1].expand_as(t) for t, m in zip((key, ids), mapped, strict=True)
    )
    expected = torch.stack([function(*row) for row in zip(x, keys, samples, strict=True)])
    arguments = (
        x.movedim(0, dim).contiguous().detach(),
        key if mapped[0] else key[0],
        ids if mapped[1] else ids[0],
    )
    in_dims = (dim, *(0 if m else None for m in mapped))
    if name in ("blocks", "map_into") and any(mapped):
        assert not torch.equal(expected[0], expected[1])
    torch.testing.assert_close(torch.func.vmap(function, in_dims)(*arguments), expected, **EXACT)


@needs_kernels
@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_within_vmap_is_the_loop_of_loops(name):
    function, (x, key, ids) = OPERATORS[name], _inputs()
    x = torch.stack((x, x + 1.0, -x))
    expected = torch.stack(
        [
            torch.stack([function(x[i, j], key[i], ids[j]) for j in range(BATCH)])
            for i in range(BATCH)
        ]
    )
    inner = torch.func.vmap(function, (0, None, 0))
    both = torch.func.vmap(inner, (0, 0, None))(x, key, ids)
    torch.testing.assert_close(both, expected, **EXACT)


@needs_kernels
def test_a_tensor_that_is_not_mapped_is_not_written_for_each_example():
    x, key, ids = _inputs()
    y, count = torch.empty(ROWS, COLUMNS), torch.zeros(1, dtype=torch.int64)

    def into(x: Tensor) -> Tensor:
        ops.map_into(y, x, *_noise(key[0], ids[0]), False)
        return x

    def blocks(key: Tensor) -> Tensor:
        return ops.blocks(CONSTANTS, key, None, ROWS, 2, True, [1, 2, 3], [1, 2, 2], 11, 2, count)

    for function, mapped in ((into, x), (blocks, key)):
        with pytest.raises(RuntimeError, match="not mapped"):
            torch.func.vmap(function)(mapped)
    assert count.item() == 0
