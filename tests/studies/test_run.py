"""Runs: the same numbers if they are interrupted, killed, resumed or divided among processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pandas as pd
import pytest
import torch

from thinned import InputError
from thinned.studies import outputs, pool, work
from thinned.studies.data import load
from thinned.studies.design import LEVELS, Settings, chunks, pilots
from thinned.studies.folds import splits
from thinned.studies.measures import resolve
from thinned.studies.outputs import finish
from thinned.studies.records import StudyFolder, dump, read, write
from thinned.studies.run import NoProgress, run

from .conftest import TINY

SMALL = replace(TINY, methods=("none", "dropout", "batch_norm"), experiments=("methods", "rate"))
TIMED = ["seconds"]
MEASURE = resolve(None, "classification", 10)


@pytest.fixture(scope="module")
def data():
    return load(None, limit=120)


def numbers(folder):
    """What has to be equal: every record without its time, and the section on ensembles."""
    store = StudyFolder(folder)
    records = [{k: v for k, v in r.items() if k not in TIMED} for r in store.records()]
    return records, store.get("ensemble")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    run(data, SMALL, folder, jobs=1)
    return folder


def test_processes_do_not_change_the_numbers(data, whole, tmp_path):
    run(data, SMALL, tmp_path / "out", jobs=2)
    assert numbers(tmp_path / "out") == numbers(whole)


def test_a_run_that_stops_anywhere_is_resumed_to_the_same_numbers(data, whole, tmp_path):
    """Interrupted after 1, 2 or 3 epochs, in the middle of chunks and between them, and continued
    each time.
    """

    class Stops(NoProgress):
        def __init__(self, after):
            self.after = after

        def advance(self, cost):
            self.after -= 1
            if self.after == 0:
                raise KeyboardInterrupt

    folder, stops = tmp_path / "out", 0
    while True:
        try:
            run(data, SMALL, folder, jobs=1, resume=stops > 0, progress=Stops(stops % 3 + 1))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 4
    assert numbers(folder) == numbers(whole)


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from thinned.studies.data import load
from thinned.studies.design import LEVELS
from thinned.studies.run import run
settings = replace(LEVELS["quick"], **eval(sys.argv[4]))
folder, jobs, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
run(load(None, limit=120), settings, folder, jobs=jobs, resume=resume)
"""


def test_sigkill_at_random_moments(data, tmp_path):
    """A process that is killed three times with SIGKILL ends with the same numbers as another."""
    rng, alive, killed = random.Random(0), 0, tmp_path / "killed"
    changes = {"methods": ("none", "dropout", "l2"), "folds": 2, "epochs": 8}
    for jobs in ("2", "1", "2"):
        begun = (killed / "study.json").exists()
        done = len(list(killed.glob("runs/*.json")))
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                KILLED,
                str(killed),
                jobs,
                "resume" if begun else "",
                repr(changes),
            ]
        )
        deadline = time.monotonic() + 60
        while (
            len(list(killed.glob("runs/*.json"))) == done
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        alive += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert alive
    for folder in (killed, tmp_path / "whole"):
        run(data, replace(LEVELS["quick"], **changes), folder, jobs=1, resume=folder is killed)
    assert numbers(killed) == numbers(tmp_path / "whole")


def test_interrupt_prints_how_to_continue(tmp_path):
    command = [
        sys.executable,
        "-m",
        "thinned",
        "study",
        "--rows",
        "200",
        "--out",
        str(tmp_path / "o"),
        "--jobs",
        "2",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 100
    while not list((tmp_path / "o").glob("runs/*.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "Interrupted. Finished parts are in" in err
    assert "--resume" in err
    assert "Traceback" not in err + out
    assert list((tmp_path / "o" / "runs").glob("*.json"))


def test_budget_leaves_the_rest(data, tmp_path):
    out = run(data, SMALL, tmp_path / "out", jobs=1, budget=1e-9)
    folds = splits(data, 2, 1, 0)
    assert out.parts_left == len(pilots(SMALL, folds)) + len(chunks(SMALL, folds, 2e-3)) + 2
    with pytest.raises(InputError, match="no complete fold yet"):
        finish(tmp_path / "out")
    assert run(data, SMALL, tmp_path / "out", jobs=1, resume=True).parts_left == 0
    assert finish(tmp_path / "out").analysis.parts_left == 0


def test_partial_study_is_reported_on_its_complete_folds(data, whole, tmp_path):
    store = StudyFolder(tmp_path)
    dump(store.header, read(StudyFolder(whole).header))
    names = sorted(p.stem for p in StudyFolder(whole).runs.glob("*.json"))
    for name in names[:4]:  # two pilots and the two parts of the first fold's methods
        store.put(name, StudyFolder(whole).get(name))
    result = finish(tmp_path)
    assert len(result.analysis.folds) == 1
    assert "one fold alone cannot show" in result.verdict.headline
    assert result.analysis.parts_left == len(names) - 4
    assert "Not finished" in result.report.read_text()


def test_a_folder_is_not_overwritten(data, whole, tmp_path):
    run(data, SMALL, whole, jobs=1)  # finished and the same: nothing to do, no error
    for changed, part in (
        (replace(SMALL, seed=1), "settings: seed"),
        (replace(SMALL, folds=3), "settings: folds"),
    ):
        with pytest.raises(InputError, match=f"started with other {part}"):
            run(data, changed, whole, jobs=1, resume=True)
    store = StudyFolder(tmp_path / "begun")
    store.prepare()
    dump(store.header, read(StudyFolder(whole).header))
    with pytest.raises(InputError, match="already holds a study; continue it with --resume"):
        run(data, SMALL, store.folder, jobs=1)
    with pytest.raises(InputError, match="started with other data"):
        run(load(None, limit=130), SMALL, whole, jobs=1, resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        run(data, SMALL, tmp_path / "new", jobs=1, resume=True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "runs/0000.json",
            '[{"experiment": "ar',
            "0000.json is damaged .*; remove it and run the study again with --resume",
        ),
        ("runs/0000.json", "[{}]", "0000.json does not have the content .*; remove it"),
        ("runs/costs.json", "{}", "costs.json does not have the content .*; remove it"),
        ("runs/ensemble.json", "[1]", "ensemble.json does not have the content .*; remove it"),
        ("study.json", "{", "study.json is damaged .*; choose another folder"),
        ("study.json", "{}", "study.json does not have the content .*; choose another folder"),
        (
            "study.json",
            '{"format": 1}',
            "format 1, but this version of thinned reads format 4; run the study again in another",
        ),
        ("study.json", '{"format": 4}', "study.json does not have the content .*; choose another"),
        ("study.json", '{"format": 99}', "format 99, but .* format 4; run the study again"),
        ("study.json", None, "holds records without study.json, .*; choose another folder"),
    ],
)
def test_damaged_records_are_reported(data, whole, tmp_path, name, text, message):
    """By the report, and by a run before it trains; records without a header are refused too."""
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=message):
            finish(folder)

    class Never(NoProgress):
        def start(self, total, done, networks):
            raise AssertionError

    for resume in (False, True):
        with pytest.raises(InputError, match=message):
            run(data, SMALL, folder, jobs=1, resume=resume, progress=Never())


def test_no_permission_and_full_disk(data, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        run(data, SMALL, tmp_path / "file" / "out", jobs=1)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("thinned.studies.records.write", full)
    with pytest.raises(
        InputError, match="cannot be written: No space left on device; choose another with --out"
    ):
        run(data, SMALL, tmp_path / "out", jobs=1)


def test_files_are_never_incomplete(tmp_path, monkeypatch):
    write(tmp_path / "a", "first")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
    with pytest.raises(OSError, match="killed here"):
        write(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = torch.nn.Linear(64, outputs)

    def forward(self, x):
        x = self.layer(x.flatten(1))
        return {forward}

def net(inputs, outputs):
    made = Net(outputs)
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def net(inputs, outputs): raise RuntimeError('boom')", r"raised RuntimeError: boom"),
        ("def net(inputs, outputs): return 3", "has to return a torch.nn.Module, but returned int"),
        ("def net(inputs): return 3", "raised TypeError"),
        (
            "import torch\ndef net(inputs, outputs): return torch.nn.Flatten()",
            "no Linear or convolution layer",
        ),
        (
            "import torch\ndef net(inputs, outputs): return torch.nn.Linear(3, 2)",
            "in training the model raised RuntimeError",
        ),
        (
            "from torch import nn\n"
            "def net(inputs, outputs): return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))",
            r"of shape \(2., 10\) on a batch of 2. rows in training, but returned \(2., 2\)",
        ),
        ("import sys\nsys.exit(0)", "importing .* raised SystemExit: 0"),
        ("def net(inputs, outputs): raise SystemExit", "raised SystemExit"),
        (
            "def net(inputs, outputs): raise ValueError('first\\nsecond')",
            "raised ValueError: first$",
        ),
        (
            MODEL.format(forward="x[:2] if self.training else x") + "    return made\n",
            r"shape .* in training, but returned \(2, 10\)",
        ),
        (
            MODEL.format(forward="x if self.training else x[0]") + "    return made\n",
            r"shape \(2, 10\) on .* in evaluation, but returned \(10,\)",
        ),
        (
            MODEL.format(forward="x / 0 if self.training else x") + "    return made\n",
            "not finite on a batch .* in training",
        ),
        (
            MODEL.format(forward="x.long()") + "    return made\n",
            "floating-point numbers, but returned torch.int64",
        ),
        (
            MODEL.format(forward="x.detach()") + "    return made\n",
            "gradients of the model cannot be computed: RuntimeError",
        ),
        (
            MODEL.format(forward="x") + "    return made.requires_grad_(False)\n",
            "no weights that can be trained",
        ),
        (
            MODEL.format(forward="x")
            + "    made.layer = torch.nn.LazyLinear(outputs)\n    return made\n",
            "has lazy layers",
        ),
        ("raise ValueError('at import')", "importing .* raised ValueError: at import"),
        ("x = 1", "has no function 'net'"),
        ("def net(:", "raised SyntaxError"),
    ],
)
def test_bad_models_are_refused_before_training(data, tmp_path, source, message):
    file = tmp_path / "model.py"
    file.write_text(source)
    with pytest.raises(InputError, match=message):
        run(data, replace(SMALL, model=f"{file}:net"), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_built_once_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "remembers.py").write_text(
        "import torch\nbody = torch.nn.Linear(64, 8)\n"
        "def net(inputs, outputs):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), body, torch.nn.Linear(8, outputs))\n"
    )
    with pytest.raises(
        InputError, match="two calls of the model function returned networks that share weights"
    ):
        run(data, replace(SMALL, model="remembers:net"), tmp_path / "out", jobs=1)


def test_missing_model_file(data, tmp_path):
    for model, message in (
        ("nowhere.py:net", "does not exist"),
        ("no_such_module:net", "raised ModuleNotFoundError"),
        (":x", "neither"),
    ):
        with pytest.raises(InputError, match=message):
            run(data, replace(SMALL, model=model), tmp_path / "out", jobs=1)


def test_own_model_with_its_own_dropout(data, tmp_path):
    """Its dropout is set to 0, and a dropout module is put before each weight layer; its batch
    normalization and buffers are kept.
    """
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(inputs, outputs):\n"
        "    print('a model may print')\n"
        "    return nn.Sequential(nn.Conv2d(inputs[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(),\n"
        "        nn.Flatten(), nn.Dropout(0.9), nn.Linear(4 * 36, outputs))\n"
    )
    settings = replace(
        LEVELS["quick"],
        model=f"{tmp_path / 'mine.py'}:net",
        folds=2,
        epochs=1,
        methods=("none", "dropout", "input_dropout", "batch_norm"),
    )
    run(data, settings, tmp_path / "out", jobs=2)
    analysis = outputs.load(tmp_path / "out")
    assert analysis.header["skipped"] == {
        "batch_norm": "it changes the layers of the network, which works only for built-in models"
    }
    assert {a.name for a in analysis.methods} == {"none", "dropout", "input_dropout"}
    losses = {
        (r["method"], r["label"]): r["scores"]["test"][0]
        for r in analysis.records
        if r["experiment"] == "methods"
    }
    assert len(set(losses.values())) == len(losses)


def test_cnn_study(data, tmp_path):
    settings = replace(
        LEVELS["quick"],
        model="cnn",
        folds=2,
        epochs=1,
        methods=("none", "dropout", "batch_norm_dropout", "drop_connect"),
    )
    run(data, settings, tmp_path / "out", jobs=1)
    assert len(outputs.load(tmp_path / "out").methods) == 4


def test_worker_that_dies_is_reported(data, monkeypatch):
    folds = splits(data, 2, 1, 0)
    planned = chunks(SMALL, folds, 2e-3)
    tasks = [work.ChunkTask(c.name, c.fold, c.title, c, SMALL, MEASURE) for c in planned] * 2
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    with pytest.raises(pool.WorkerError, match="a worker process died"):
        pool.run_tasks(tasks, folds, 2, lambda: True, lambda *_: None)


def test_worker_passes_errors_on(data):
    folds = splits(data, 2, 1, 0)
    chunk = chunks(SMALL, folds, 2e-3)[0]
    jobs = tuple(replace(j, recipe=j.recipe.at(label_smoothing=0.1)) for j in chunk.jobs)
    table = [replace(f, task=replace(f.task, kind="regression", outputs=1)) for f in folds]
    tasks = [work.ChunkTask("0", 0, "", replace(chunk, jobs=jobs), SMALL, MEASURE)] * 2
    with pytest.raises(InputError, match="label_smoothing is for classification"):
        pool.run_tasks(tasks, table, 2, lambda: True, lambda *_: None)


def test_an_interrupt_that_python_loses_ends_the_study(data):
    """An interrupt during a finalizer raises nothing there; the next event ends the study."""
    folds = splits(data, 2, 1, 0)
    chunk = chunks(SMALL, folds, 2e-3)[0]
    tasks = [work.ChunkTask(str(i), 0, "", chunk, SMALL, MEASURE) for i in range(2)]
    heard = []

    def listen(kind, task, value):
        heard.append(kind)
        if len(heard) == 1:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what runs in a shell's background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.run_tasks(tasks, folds, 2, lambda: True, listen)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) == 1


def test_smaller_sets_are_repeated_with_ids_of_their_own(data):
    train = splits(data, 2, 1, 0)[0].train
    few = work.tile_rows(train, 10)
    assert len(few) == len(train)
    assert len(few.ids.unique()) == len(train)
    assert torch.equal(few.x[10:20], train.x[:10])
    assert torch.equal(few.ids[:10], train.ids[:10])


def test_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with work.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_records_hold_what_the_report_needs(tiny):
    records = tiny.analysis.records
    counts = Counter(r["experiment"] for r in records)
    assert set(counts) == {"pilot", "methods", "rate", "layers", "batch", "optimizer", "size"}
    assert json.loads(json.dumps(records)) == records
    table = tiny.table
    assert len(table) == len(records)
    assert {
        "experiment",
        "method",
        "label",
        "fold",
        "val_loss",
        "test_error",
        "seconds",
        "recipe",
        "gap",
        "dead_units",
    } <= set(table)
    written = pd.read_parquet(tiny.folder / "results.parquet")
    pd.testing.assert_frame_equal(written, table, check_dtype=False)
    assert not written[["val_loss", "test_error"]].isna().any().any()


def test_settings_survive_json():
    assert (
        Settings(
            **{
                k: tuple(v) if isinstance(v, list) else v
                for k, v in json.loads(json.dumps(Settings().to_json())).items()
            }
        )
        == Settings()
    )
