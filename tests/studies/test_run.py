"""Runs: the same numbers however they are cut, killed, resumed or spread over processes."""

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
from thinned.studies.outputs import finish
from thinned.studies.records import Store, dump, read, write
from thinned.studies.run import Silent, run

from .conftest import TINY

SMALL = replace(TINY, arms=("none", "dropout", "bn"), experiments=("arms", "rate"))
TIMED = ["seconds"]


@pytest.fixture(scope="module")
def data():
    return load(None, limit=120)


def numbers(folder):
    """All that has to be equal: every record without its time, and the section on ensembles."""
    store = Store(folder)
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
    """Interrupted after 1, 2 or 3 epochs, in the middle of chunks and between them; each time it
    goes on.
    """

    class Stops(Silent):
        def __init__(self, after):
            self.after = after

        def advance(self, cost):
            self.after -= 1
            if self.after == 0:
                raise KeyboardInterrupt

    folder, stops = tmp_path / "out", 0
    while True:
        try:
            run(data, SMALL, folder, jobs=1, resume=stops > 0, watcher=Stops(stops % 3 + 1))
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
run(load(None, limit=120), settings, Path(sys.argv[1]), jobs=int(sys.argv[2]), resume=sys.argv[3] == "resume")
"""


def test_sigkill_at_random_moments(data, tmp_path):
    """A real process, killed three times with SIGKILL, ends with the numbers of one that was not."""
    rng, alive, killed = random.Random(0), 0, tmp_path / "killed"
    changes = {"arms": ("none", "dropout", "l2"), "folds": 2, "epochs": 8}
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


def test_interrupt_says_how_to_go_on(tmp_path):
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
    assert "Interrupted. What is finished is in" in err
    assert "--resume" in err
    assert "Traceback" not in err + out
    assert list((tmp_path / "o" / "runs").glob("*.json"))


def test_budget_leaves_the_rest(data, tmp_path):
    out = run(data, SMALL, tmp_path / "out", jobs=1, budget=1e-9)
    folds = splits(data, 2, 1, 0)
    assert out.left == len(pilots(SMALL, folds)) + len(chunks(SMALL, folds, 2e-3)) + 2
    with pytest.raises(InputError, match="no complete fold yet"):
        finish(tmp_path / "out")
    assert run(data, SMALL, tmp_path / "out", jobs=1, resume=True).left == 0
    assert finish(tmp_path / "out").analysis.left == 0


def test_partial_study_is_reported_on_its_complete_folds(data, whole, tmp_path):
    store = Store(tmp_path)
    dump(store.header, read(Store(whole).header))
    names = sorted(p.stem for p in Store(whole).runs.glob("*.json"))
    for name in names[:4]:  # two pilots and the two parts of the first fold's arms
        store.put(name, Store(whole).get(name))
    result = finish(tmp_path)
    assert len(result.analysis.folds) == 1
    assert "one fold alone cannot say" in result.verdict.headline
    assert result.analysis.left == len(names) - 4
    assert "Not finished" in result.report.read_text()


def test_a_folder_is_not_overwritten(data, whole, tmp_path):
    run(data, SMALL, whole, jobs=1)  # finished and the same: nothing to do, no error
    for changed, part in (
        (replace(SMALL, seed=1), "settings: seed"),
        (replace(SMALL, folds=3), "settings: folds"),
    ):
        with pytest.raises(InputError, match=f"begun with other {part}"):
            run(data, changed, whole, jobs=1, resume=True)
    store = Store(tmp_path / "begun")
    store.prepare()
    dump(store.header, read(Store(whole).header))
    with pytest.raises(InputError, match="holds a study already; go on with it by --resume"):
        run(data, SMALL, store.folder, jobs=1)
    with pytest.raises(InputError, match="begun with other data"):
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
        ("runs/0000.json", "[{}]", "0000.json does not hold what .*; remove it"),
        ("runs/costs.json", "{}", "costs.json does not hold what .*; remove it"),
        ("runs/ensemble.json", "[1]", "ensemble.json does not hold what .*; remove it"),
        ("study.json", "{", "study.json is damaged .*; choose another folder"),
        ("study.json", "{}", "study.json does not hold what .*; choose another folder"),
        ("study.json", '{"format": 99}', "study.json does not hold what .*; choose another folder"),
        ("study.json", None, "holds records without study.json, .*; choose another folder"),
    ],
)
def test_damaged_records_are_told(data, whole, tmp_path, name, text, message):
    """By the report, and by a run before it trains; without its header a folder's records are
    nobody's.
    """
    folder = tmp_path / "out"
    shutil.copytree(whole, folder)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=message):
            finish(folder)

    class Never(Silent):
        def start(self, total, done, networks):
            raise AssertionError

    for resume in (False, True):
        with pytest.raises(InputError, match=message):
            run(data, SMALL, folder, jobs=1, resume=resume, watcher=Never())


def test_no_permission_and_no_room(data, tmp_path, monkeypatch):
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


def test_files_are_never_half_there(tmp_path, monkeypatch):
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
            "import torch\ndef net(inputs, outputs): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))",
            r"a tensor of shape \(2., 10\) on a batch of 2. rows in training, but returned \(2., 2\)",
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
            "gradients cannot be computed: RuntimeError",
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
        InputError, match="two calls of the model function gave networks that share weights"
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
    """Its dropout is set to 0; ours stands before each weight layer; batch normalisation and
    buffers are its own.
    """
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def net(inputs, outputs):\n"
        "    print('a model may print')\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(inputs[0], 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),\n"
        "        torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(4 * 36, outputs))\n"
    )
    settings = replace(
        LEVELS["quick"],
        model=f"{tmp_path / 'mine.py'}:net",
        folds=2,
        epochs=1,
        arms=("none", "dropout", "input", "bn"),
    )
    run(data, settings, tmp_path / "out", jobs=2)
    analysis = outputs.load(tmp_path / "out")
    assert analysis.header["skipped"] == {
        "bn": "it changes the network's layers, which is done for built-in models only"
    }
    assert {a.name for a in analysis.arms} == {"none", "dropout", "input"}
    losses = {
        (r["arm"], r["label"]): r["scores"]["test"][0]
        for r in analysis.records
        if r["experiment"] == "arms"
    }
    assert len(set(losses.values())) == len(losses)


def test_cnn_study(data, tmp_path):
    settings = replace(
        LEVELS["quick"],
        model="cnn",
        folds=2,
        epochs=1,
        arms=("none", "dropout", "bn-dropout", "dropconnect"),
    )
    run(data, settings, tmp_path / "out", jobs=1)
    assert len(outputs.load(tmp_path / "out").arms) == 4


def test_worker_that_dies_is_told(data, monkeypatch):
    folds = splits(data, 2, 1, 0)
    tasks = [work.Task(c.name, c.fold, c.what, c, SMALL) for c in chunks(SMALL, folds, 2e-3)] * 2
    monkeypatch.setattr(pool.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="a worker process died"):
        pool.perform(tasks, folds, 2, lambda: True, lambda *_: None)


def test_worker_passes_errors_on(data):
    folds = splits(data, 2, 1, 0)
    chunk = chunks(SMALL, folds, 2e-3)[0]
    jobs = tuple(replace(j, recipe=j.recipe.at(label_smoothing=0.1)) for j in chunk.jobs)
    table = [replace(f, task=replace(f.task, kind="regression", outputs=1)) for f in folds]
    tasks = [work.Task("0", 0, "", replace(chunk, jobs=jobs), SMALL)] * 2
    with pytest.raises(InputError, match="label_smoothing is for classification"):
        pool.perform(tasks, table, 2, lambda: True, lambda *_: None)


def test_an_interrupt_that_python_loses_is_one(data):
    """One that comes within a finalizer raises nothing there; the next event ends the study."""
    folds = splits(data, 2, 1, 0)
    chunk = chunks(SMALL, folds, 2e-3)[0]
    tasks = [work.Task(str(i), 0, "", chunk, SMALL) for i in range(2)]
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
            pool.perform(tasks, folds, 2, lambda: True, listen)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) == 1


def test_smaller_sets_are_repeated_with_ids_of_their_own(data):
    train = splits(data, 2, 1, 0)[0].train
    few = work.tiled(train, 10)
    assert len(few) == len(train)
    assert len(few.ids.unique()) == len(train)
    assert torch.equal(few.x[10:20], train.x[:10])
    assert torch.equal(few.ids[:10], train.ids[:10])


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with work.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_records_hold_what_the_report_needs(tiny):
    records = tiny.analysis.records
    counts = Counter(r["experiment"] for r in records)
    assert set(counts) == {"pilot", "arms", "rate", "layers", "batch", "optimizer", "size"}
    assert json.loads(json.dumps(records)) == records
    table = tiny.table
    assert len(table) == len(records)
    assert {
        "experiment",
        "arm",
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
