"""One rank of the tests of distributed tensors: ``python sharded_ranks.py RANK RANKS STORE OUT``.

Rank 0 writes the results.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import thinned
from thinned import functional, nn

SHAPE = (6, 10, 7)  # examples, tokens, features: uneven shards
LAYERS = {
    "dropout": lambda: nn.Dropout(0.5),
    "gaussian": lambda: nn.GaussianDropout(0.5),
    "uniform": lambda: nn.UniformDropout(0.5),
    "alpha": lambda: nn.AlphaDropout(0.5),
    "locked": lambda: nn.LockedDropout(0.5),
    "path": lambda: nn.DropPath(0.5),
    "channels": lambda: nn.Dropout1d(0.5),
    "blocks": lambda: nn.DropBlock1d(0.4, 3),
    "token": lambda: nn.SpecDropout(thinned.presets.spatial_dropout(0.5), layout="b t c"),
    "reference": lambda: nn.Dropout(0.5, impl="reference"),
}
SEVERAL = ("dropout", "locked", "blocks")  # that run with and without ids and key
IDS = torch.tensor([5, 3, 900, 7, 11, 2])


def values() -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 1


def meshes(ranks: int) -> dict:
    axes = range(3) if ranks == 2 else [1]
    line = init_device_mesh("cpu", (ranks,)), [[Shard(i)] for i in axes] + [[Replicate()]]
    lines = {"line": line}
    if ranks == 4:
        grid = init_device_mesh("cpu", (2, 2))
        pairs = [
            [Shard(0), Shard(2)],
            [Shard(1), Shard(0)],
            [Replicate(), Shard(1)],
            [Shard(2), Replicate()],
            [Shard(1), Shard(1)],
            [Replicate(), Replicate()],
        ]
        lines["grid"] = grid, pairs
    return lines


def draw(layer: torch.nn.Module, x: torch.Tensor, keyed: bool, ids: torch.Tensor | None = None):
    """The output of a layer and the gradient of its squares."""
    if keyed:
        thinned.key(layer, seed=3).at(7, samples=ids)
    x = x.detach().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    return y, x.grad


def full(t: torch.Tensor) -> torch.Tensor:
    return t.full_tensor().detach() if isinstance(t, DTensor) else t.detach()


def same_everywhere(t: torch.Tensor) -> bool:
    parts = [torch.empty_like(t) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, t.contiguous())
    return all(torch.equal(part, t) for part in parts)


def sharded(ranks: int, results: dict) -> None:
    x = values()
    for kind, (mesh, all_placements) in meshes(ranks).items():
        for placements in all_placements:
            shards = distribute_tensor(x, mesh, placements)
            for name, make in LAYERS.items():
                place = f"{kind} {placements} {name}"
                for ids in (None, IDS) if name in SEVERAL else (IDS,):
                    expected = draw(make(), x, True, ids)
                    drawn = draw(make(), shards, True, ids)
                    results[f"{place} keyed {ids is None}"] = [
                        bool(drawn[0].placements == tuple(placements)),
                        *[
                            torch.equal(full(a), full(b))
                            for a, b in zip(drawn, expected, strict=True)
                        ],
                    ]
                if name not in SEVERAL:
                    continue
                # without a key the result is one draw of the whole tensor, of rank 0's generator
                # where the generators agree, and some draw of the same values where they do not
                torch.manual_seed(4)
                expected = draw(make(), x, False)
                torch.manual_seed(4)
                drawn = draw(make(), shards, False)
                results[f"{place} unkeyed"] = [
                    torch.equal(full(a), full(b)) for a, b in zip(drawn, expected, strict=True)
                ]
                torch.manual_seed(100 + dist.get_rank())
                y, grad = draw(make(), shards, False)
                results[f"{place} other seeds"] = [
                    same_everywhere(full(y)) and same_everywhere(full(grad)),
                    sorted(full(y).unique().tolist()) != sorted(full(x).unique().tolist()),
                ]


def copies_agree(ranks: int, results: dict) -> None:
    """Replicated tensors are equal on all ranks, shards are independent."""
    mesh = init_device_mesh("cpu", (ranks,))
    torch.manual_seed(dist.get_rank())
    copy = nn.Dropout(0.5)(distribute_tensor(torch.ones(40, 40), mesh, [Replicate()]))
    results["copies agree"] = [same_everywhere(copy.to_local())]
    torch.manual_seed(1)  # equal states, as training scripts set them
    parts = nn.Dropout(0.5)(distribute_tensor(torch.ones(40, 40), mesh, [Shard(0)]))
    results["shards differ"] = [not same_everywhere(parts.to_local())]
    torch.manual_seed(dist.get_rank())
    steps = nn.LockedDropout(0.5)(distribute_tensor(torch.ones(3, 8, 9), mesh, [Shard(1)]))
    whole = steps.full_tensor()
    results["one mask for all steps"] = [torch.equal(whole, whole[:, :1].expand_as(whole))]


def refused(ranks: int, results: dict) -> None:
    mesh = init_device_mesh("cpu", (ranks,))
    x = DTensor.from_local(torch.ones(4, 4), mesh, [Partial()])
    try:
        nn.Dropout(0.5)(x)
    except thinned.InputError as error:
        results["partial"] = ["redistribute" in str(error)]
    layer = nn.Dropout(0.5)
    thinned.key(layer, 1).at(0, samples=[1, 2])
    try:
        layer(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
    except thinned.InputError as error:
        results["ids"] = ["each of the 4 examples" in str(error)]


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = torch.nn.LayerNorm(8)
        self.drop = nn.Dropout(0.5)
        self.up = torch.nn.Linear(8, 16)
        self.inner = nn.Dropout(0.5)
        self.down = torch.nn.Linear(16, 8)

    def forward(self, x):
        return self.down(self.inner(torch.relu(self.up(self.drop(self.norm(x))))))


def parallel_modules(ranks: int, results: dict) -> None:
    mesh = init_device_mesh("cpu", (ranks,))
    x = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(1))
    plain, model = Block(), Block()
    plan = {
        "norm": SequenceParallel(),
        "drop": SequenceParallel(use_local_output=True),
        "up": ColwiseParallel(input_layouts=Shard(1), use_local_output=False),
        "down": RowwiseParallel(output_layouts=Replicate()),
    }
    model = parallelize_module(model, mesh, plan)
    for net in (plain, model):
        thinned.key(net, seed=2).at(3)
    expected = plain(x)
    shard = distribute_tensor(x, mesh, [Shard(1)])
    y = model(shard)
    expected.square().sum().backward()
    y.square().sum().backward()
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    grads = [(full(a.grad), b.grad) for a, b in pairs]
    results["parallelize_module"] = [
        torch.allclose(full(y), expected.detach(), atol=1e-5),
        *[torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in grads],
    ]


def functions(ranks: int, results: dict) -> None:
    mesh, x, key = init_device_mesh("cpu", (ranks,)), values(), thinned.Key(8)
    shards = distribute_tensor(x, mesh, [Shard(1)])
    spec = thinned.presets.dropout(0.5)
    expected = functional.drop(x, spec, key=key)
    results["drop"] = [torch.equal(full(functional.drop(shards, spec, key=key)), expected)]
    once = shards.clone()
    functional.drop(once, spec, key=key, inplace=True)
    results["in place"] = [torch.equal(full(once), expected)]
    torch.manual_seed(5)
    expected = functional.dropout(x, 0.5)
    torch.manual_seed(5)
    results["dropout"] = [torch.equal(full(functional.dropout(shards, 0.5)), expected)]
    compiled = torch.compile(lambda t: nn_layer(t) * 2, backend="eager")
    nn_layer = nn.Dropout(0.5)
    model_key = thinned.key(nn_layer, 1)
    model_key.at(0)
    expected = nn_layer(x) * 2
    model_key.at(0)
    results["compiled"] = [torch.equal(full(compiled(shards)), expected)]
    layer = nn.Dropout(0.5).eval()
    results["evaluation"] = [layer(shards) is shards]
    with thinned.sampling(layer):
        results["sampling"] = [not torch.equal(full(layer(shards)), x)]


def main(rank: int, ranks: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    results: dict = {}
    for part in (sharded, copies_agree, refused, parallel_modules, functions):
        part(ranks, results)
    if rank == 0:
        torch.save(results, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    os._exit(0)  # gloo's threads do not always end with the interpreter
