"""One rank of the distributed tests: ``python ranks.py RANK RANKS STORE OUT``.

Rank 0 writes the results.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import thinned
from thinned import nn

BATCH = 16


def net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(12, 32),
        torch.nn.ReLU(),
        nn.Dropout(0.5),
        torch.nn.Linear(32, 8),
        nn.Dropout(0.2),
    )


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(BATCH, 12, generator=generator), torch.randperm(1000, generator=generator)[
        :BATCH
    ]


def main(rank: int, ranks: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    x, ids = batch()
    own_rows = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    results = {}
    for wrap in ("ddp", "fsdp"):
        model = net()
        key = None
        if wrap == "ddp":
            wrapped = DistributedDataParallel(model)
            key = thinned.key(
                wrapped, seed=3
            )  # keyed through the wrapper: names are those of the model
        else:
            key = thinned.key(model, seed=3)
            wrapped = fully_shard(model)
        torch.manual_seed(rank)  # the ranks' own generators differ
        key.at(7, samples=ids[own_rows])
        y = wrapped(x[own_rows])
        y.square().sum().backward()
        parts = [torch.empty_like(y) for _ in range(ranks)]
        dist.all_gather(parts, y.detach())
        grad = model[0].weight.grad
        results[wrap] = (torch.cat(parts), grad.full_tensor() if wrap == "fsdp" else grad)
    if rank == 0:
        torch.save(results, out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    os._exit(0)  # gloo's threads do not always end with the interpreter
