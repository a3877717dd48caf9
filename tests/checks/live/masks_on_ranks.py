"""One rank of the test of masks on ranks: ``python masks_on_ranks.py RANK RANKS STORE OUT``.

Writes the findings of this rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import thinned
from thinned.checks.live import same_masks_on_ranks


def network() -> torch.nn.Module:
    torch.manual_seed(0)  # the parameters of all ranks are equal
    return torch.nn.Sequential(
        torch.nn.Linear(12, 64), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 4)
    )


class Noisy(torch.nn.Module):
    """Draws from NumPy, unseen by torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.from_numpy(np.random.rand(*x.shape) > 0.5)


def keyed(seed: int) -> torch.nn.Module:
    model = network()
    model[2] = thinned.nn.Dropout(0.5)
    thinned.key(model, seed)
    return model


def main(rank: int, ranks: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(rank))
    ids = torch.arange(8) + 8 * rank
    findings = {}

    def ask(name: str, model: torch.nn.Module) -> None:
        before = {n: t.clone() for n, t in model.state_dict().items()}
        at = torch.get_rng_state()
        found = same_masks_on_ranks(model, x)
        same = all(
            torch.equal(before[n], t) for n, t in model.state_dict().items()
        ) and torch.equal(at, torch.get_rng_state())
        findings[name] = [[f.code, f.site, f.message] for f in found] + (
            [] if same else [["moved", "", ""]]
        )

    ask("one seed on all ranks", network())
    model = network()
    torch.manual_seed(rank)
    ask("another seed on each rank", model)
    wrapped = DistributedDataParallel(network())
    for name, seed in (("wrapped, another seed", rank), ("wrapped, one seed", 5)):
        torch.manual_seed(seed)
        ask(name, wrapped)
    np.random.seed(rank)
    ask("unseen draws", torch.nn.Sequential(torch.nn.Linear(12, 64), Noisy()))
    for name, seed, samples in (
        ("one key, no ids", 3, None),
        ("one key, ids", 3, ids),
        ("another key on each", 3 + rank, None),
    ):
        model = keyed(seed)
        thinned.key_of(model).at(0, samples=samples)
        ask(name, model)
    Path(f"{out}.{rank}").write_text(json.dumps(findings))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    os._exit(0)  # gloo's threads do not always end with the interpreter
