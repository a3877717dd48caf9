"""Each example has its own masks, with any loader and on any number of processes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Subset,
    TensorDataset,
)

import thinned
from thinned.integrations.data import Indexed

from ..processes import ranks

SCRIPT = Path(__file__).with_name("accelerate_ranks.py")


def rows(count=10):
    return TensorDataset(torch.arange(count)[:, None] + torch.zeros(3), torch.arange(count) % 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_ids_go_with_the_examples(workers):
    made = torch.Generator().manual_seed(0)
    batches = list(
        DataLoader(Indexed(rows()), 4, shuffle=True, generator=made, num_workers=workers)
    )
    assert [len(ids) for ids, _ in batches] == [4, 4, 2]
    for ids, (x, y) in batches:
        assert ids.dtype == torch.int64
        assert torch.equal(x[:, 0].long(), ids)
        assert torch.equal(y, ids % 2)
    together = torch.cat([ids for ids, _ in batches])
    assert sorted(together.tolist()) == list(range(10))
    assert together.tolist() != list(range(10))


def test_ids_through_samplers_and_subsets():
    data = Indexed(rows(8))
    shards = [DistributedSampler(data, 2, rank, seed=3) for rank in range(2)]
    ids = [
        torch.cat([ids for ids, _ in DataLoader(data, 2, sampler=shard)]).tolist()
        for shard in shards
    ]
    assert ids == [list(shard) for shard in shards]
    assert sorted(ids[0] + ids[1]) == list(range(8))
    assert [i for i, _ in Subset(data, [5, 2])] == [5, 2]  # of the whole
    assert [i for i, _ in Indexed(Subset(rows(8), [5, 2]))] == [0, 1]  # of the part
    assert data[-1][0] == 7
    assert data[torch.tensor(3)][0] == 3


class Together(Dataset):
    """A data set that loads batches at once, as those of Hugging Face do."""

    asked = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index):
        return {"x": float(index)}

    def __getitems__(self, indices):
        self.asked += 1
        return [self[i] for i in indices]


def test_dicts_and_batches_at_once():
    data = Together()
    batches = list(DataLoader(Indexed(data, name="sample"), 3))
    assert data.asked == 2
    assert [b["sample"].tolist() for b in batches] == [[0, 1, 2], [3, 4, 5]]
    assert [b["x"].tolist() for b in batches] == [[0, 1, 2], [3, 4, 5]]
    assert data[0] == {"x": 0.0}


def test_what_cannot_be_indexed():
    class Stream(IterableDataset):
        def __iter__(self):
            yield 0

    for data in (Stream(), iter([1]), 3):
        with pytest.raises(thinned.InputError, match="data has to be map-style"):
            Indexed(data)
    with pytest.raises(thinned.InputError, match="item 0 is int"):
        Indexed([1], name="sample")[0]
    with pytest.raises(thinned.InputError, match="holds 'sample' already"):
        Indexed([{"sample": 1}], name="sample")[0]
    with pytest.raises(IndexError, match="but got 2"):
        Indexed([1, 2])[2]
    assert list(Indexed("ab")) == [(0, "a"), (1, "b")]  # ordinary iteration ends


def processes(count, folder):
    """What each rank recorded."""
    store, out = folder / f"store{count}", folder / f"out{count}"
    ranks(SCRIPT, [[str(rank), str(count), str(store), str(out)] for rank in range(count)], folder)
    return [torch.load(f"{out}.{rank}", weights_only=True) for rank in range(count)]


@pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)
def test_one_process_and_two_under_accelerate(tmp_path):
    """The same masks for the same examples and steps, so the same gradients up to rounding."""
    (one,), two = processes(1, tmp_path), processes(2, tmp_path)
    if "weights" in one:  # under the Trainer of Hugging Face
        assert torch.equal(two[0]["weights"], two[1]["weights"])
        torch.testing.assert_close(two[0]["weights"], one["weights"])
    alone, pair = one["batches"], [rank["batches"] for rank in two]
    for case, drop_last in enumerate((True, False)):
        masks, repeated = {}, 0
        for step, ids, dropped, _ in alone[case]:
            masks |= {(step, int(i)): row for i, row in zip(ids, dropped, strict=True)}
        assert len({tuple(row.tolist()) for row in masks.values()}) > 0.9 * len(
            masks
        )  # 12 entries each: some masks are equal by chance
        assert (
            len(alone[case]) == len(pair[0][case]) == len(pair[1][case]) == (4 if drop_last else 6)
        )
        for single, first, second in zip(alone[case], pair[0][case], pair[1][case], strict=True):
            assert single[0] == first[0] == second[0]
            ids = torch.cat([first[1], second[1]])
            for i, row in zip(ids, torch.cat([first[2], second[2]]), strict=True):
                if (single[0], int(i)) in masks:
                    assert torch.equal(row, masks[single[0], int(i)])
                else:
                    repeated += 1
            if len(single[1]) == 8:
                assert sorted(ids.tolist()) == sorted(single[1].tolist())
        synced = [
            i
            for i, r in enumerate(alone[case])
            if i + 1 == len(alone[case]) or alone[case][i + 1][0] != r[0]
        ]
        if drop_last:
            for i in synced:  # otherwise examples that count twice fill the last batch
                torch.testing.assert_close(pair[0][case][i][3], alone[case][i][3])
                torch.testing.assert_close(pair[1][case][i][3], alone[case][i][3])
        assert (repeated == 0) == drop_last


@pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)
def test_watching_through_accelerates_trackers(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from accelerate import Accelerator
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    accelerator.init_trackers("watched")
    net, x = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)), torch.randn(8, 3)
    loss = torch.nn.functional.mse_loss
    with thinned.watch(
        net, loss=loss, every=2, log=lambda v: accelerator.log(v, step=v["watch/step"])
    ) as watch:
        for _ in range(4):
            loss(net(x), x[:, :2]).backward()
            watch.step(x, x[:, :2])
    accelerator.end_training()
    read = EventAccumulator(str(tmp_path / "watched")).Reload()
    assert [(e.step, e.value) for e in read.Scalars("watch/loss/eval_mode")] == [
        (r["step"], pytest.approx(r["eval"])) for r in watch.history
    ]
