"""Distributed tensors on several ranks of gloo, against the same layers on the whole tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ...processes import ranks

SCRIPT = Path(__file__).with_name("sharded_ranks.py")


@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_parts_of_one_mask(count, tmp_path):
    store, out = str(tmp_path / "store"), str(tmp_path / "out.pt")
    arguments = [[str(rank), str(count), store, out] for rank in range(count)]
    ranks(SCRIPT, arguments, tmp_path, seconds=200.0)
    results = torch.load(out)
    wrong = {name: found for name, found in results.items() if not (found and all(found))}
    assert not wrong
    assert {"copies agree", "shards differ", "partial", "ids", "parallelize_module"} <= set(results)
