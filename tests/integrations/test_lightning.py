"""Real small trainings under Lightning."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("lightning", reason="lightning is not installed")

import lightning

import thinned
from thinned.integrations.lightning import ThinnedCallback, WatchCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of workers and devices


class Net(lightning.LightningModule):
    def __init__(self, p=0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            thinned.nn.Dropout(p),
            nn.Linear(16, 3),
        )
        self.rates = []

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, index):
        self.rates.append(self.layers[3].p)
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch, index):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def loader():
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :3].argmax(1)), 16)


def fit(net, *callbacks, epochs=3, logger=None, **options):
    logged = []

    class Logger(lightning.pytorch.loggers.logger.Logger):
        name, version = "test", 0

        def log_hyperparams(self, *args) -> None: ...

        def log_metrics(self, metrics, step=None) -> None:
            logged.append((step, metrics))

    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=logger or Logger(),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(net, loader(), loader())
    return trainer, logged


def test_watched_is_the_same_and_is_logged():
    ends = []
    for callbacks in ([], [WatchCallback(loss=F.cross_entropy, every=2)]):
        torch.manual_seed(0)
        net = Net()
        _, logged = fit(net, *callbacks)
        ends.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))
    watch = callbacks[0].watch
    samples = [r for r in watch.history if r["what"] == "sample"]
    assert len(samples) == 6
    assert sum(r["what"] == "validation" for r in watch.history) == 3
    assert not watch.findings.of("L25")
    assert samples[0]["rates"]["layers.3"]["nominal"] == 0.5
    assert set(samples[0]["gradients"]) == {"layers.0", "layers.1", "layers.4"}
    assert samples[0]["loss"] > 0
    assert sum("watch/loss/train_mode" in m for _, m in logged) == 6
    other = WatchCallback(loss=F.cross_entropy, every=2)
    other.load_state_dict(callbacks[0].state_dict())
    fit(net, other, epochs=1)
    assert other.watch.steps == 16


def test_through_tensorboards_logger(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = WatchCallback(loss=F.cross_entropy, every=4)
    fit(
        Net(),
        callback,
        epochs=2,
        logger=lightning.pytorch.loggers.TensorBoardLogger(tmp_path, "runs", "one"),
    )
    read = EventAccumulator(str(tmp_path / "runs" / "one")).Reload()
    train = [r["train"] for r in callback.watch.history if r["what"] == "sample"]
    assert [e.value for e in read.Scalars("watch/loss/train_mode")] == pytest.approx(train)
    assert [e.step for e in read.Scalars("watch/rate/layers.3")] == [1, 5]


def test_through_mlflows_logger(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    callback = WatchCallback(loss=F.cross_entropy, every=4)
    logger = lightning.pytorch.loggers.MLFlowLogger("watched", tracking_uri=tmp_path.as_uri())
    fit(Net(), callback, epochs=2, logger=logger)
    kept = mlflow.MlflowClient(tmp_path.as_uri()).get_metric_history(
        logger.run_id, "watch/loss/train_mode"
    )
    assert [(m.step, m.value) for m in kept] == [
        (step, pytest.approx(r["train"]))
        for step, r in zip(
            (1, 5), (r for r in callback.watch.history if r["what"] == "sample"), strict=True
        )
    ]


def test_schedules_and_keys():
    net = Net(thinned.algebra.schedule.Linear(0.0, 0.4, 8))
    fit(net, ThinnedCallback(), epochs=3)
    assert net.rates[0] == 0.0
    assert net.rates[4] == pytest.approx(0.2)
    assert net.rates[-1] == pytest.approx(0.4)
    ends = []
    for seed in (1, 2):
        torch.manual_seed(0)
        net = Net()
        torch.manual_seed(seed)  # a key makes it irrelevant
        fit(net, ThinnedCallback(key=3), accumulate_grad_batches=2)
        ends.append(net.layers[0].weight.detach().clone())
    assert torch.equal(*ends)
    with pytest.raises(thinned.InputError, match="no key"):
        thinned.key_of(net)


def test_a_fit_after_an_error():
    class Failing(Net):
        fails = True

        def training_step(self, batch, index):
            if self.fails:
                raise RuntimeError("out of memory")
            return super().training_step(batch, index)

    callback, net = ThinnedCallback(key=3), Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(net, callback, epochs=1)
    net.fails = False
    fit(net, callback, epochs=1)
    with pytest.raises(thinned.InputError, match="no key"):
        thinned.key_of(net)


def test_sampling_in_prediction():
    stock = Net()
    stock.layers[3] = nn.Dropout(0.5)
    for on, net in ((True, Net()), (False, Net()), (True, stock)):
        trainer, _ = fit(net, ThinnedCallback(sampling=on), epochs=1)
        first, second = (
            torch.cat(trainer.predict(trainer.lightning_module, loader())) for _ in range(2)
        )
        assert torch.equal(first, second) != on
    net = Net()
    trainer, _ = fit(net, ThinnedCallback(sampling=True), epochs=1)
    net.layers[3] = nn.Identity()
    with pytest.raises(thinned.InputError, match="finds no dropout"):
        trainer.predict(net, loader())


class Leaky(Net):
    def forward(self, x):
        return self.layers(F.dropout(x, 0.2))


def test_checked_at_the_start():
    first, plain = ThinnedCallback(check=True), Leaky()
    with pytest.warns(
        UserWarning, match="L1 dropout-without-training: F.dropout draws in evaluation, at rate 0.2"
    ):
        fit(plain, first, epochs=1)
    assert "L1" in first.findings.codes
    right = ThinnedCallback(check=True, unpack=lambda batch: batch[0])
    fit(Net(), right, epochs=1)
    assert right.findings is not None
    assert "L1" not in right.findings.codes


def test_a_check_changes_no_training():
    ends = []
    for on in (True, False):
        torch.manual_seed(0)
        net = Net()
        fit(net, ThinnedCallback(check=on), epochs=1)
        ends.append(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))


class WithoutForward(lightning.LightningModule):
    """Batches are dicts, and the loss is computed inside, and logged."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def training_step(self, batch):
        loss = F.cross_entropy(self.layers(batch["x"]), batch["y"])
        self.log("train_loss", loss)
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def dicts():
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(1))
    rows = [{"x": row, "y": row[:3].argmax(), "id": i} for i, row in enumerate(x)]
    return torch.utils.data.DataLoader(rows, 16)


def fit_dicts(net, *callbacks, epochs=2):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(net, dicts())
    return trainer


def test_a_module_without_forward():
    ends = []
    for watched in (False, True):
        torch.manual_seed(0)
        net = WithoutForward()
        watching, checking = WatchCallback(every=1), ThinnedCallback(check=True)
        trainer = fit_dicts(net, *([watching, checking] if watched else []))
        ends.append((net.state_dict(), trainer.callback_metrics))
    assert all(
        torch.equal(a, b) for a, b in zip(ends[0][0].values(), ends[1][0].values(), strict=True)
    )
    assert ends[0][1].keys() == ends[1][1].keys()  # the passes logged nothing
    samples = watching.watch.history
    assert len(samples) == 8
    assert samples[0]["rates"]["layers.2"]["nominal"] == 0.3
    x = next(iter(dicts()))
    again = thinned.watch(net)
    net.train()
    again.step(x)
    expected = F.cross_entropy(net.layers.eval()(x["x"]), x["y"])
    assert again.history[0]["eval"] == pytest.approx(float(expected), abs=1e-6)
    assert checking.findings == ()
    named = WatchCallback(loss=F.cross_entropy, unpack=lambda batch: (batch["x"], batch["y"]))
    fit_dicts(WithoutForward(), named)
    assert named.watch.history[0]["eval"] > 0  # by the step: there is no forward to call
    with pytest.raises(thinned.InputError, match="its training_step computes the loss"):
        thinned.watch(net, loss=F.cross_entropy)


def test_no_callback_ends_a_training():
    def broken(batch):
        raise ValueError("the user's own")

    class Late(WithoutForward):
        def training_step(self, batch):
            if not self.training:
                raise ValueError("never evaluated")
            return super().training_step(batch)

    cases = [
        (Net, WatchCallback(loss=F.cross_entropy, unpack=broken), "watching ends here"),
        (Net, ThinnedCallback(check=True, unpack=broken), "the check ends here"),
        (Net, WatchCallback(loss=F.cross_entropy, log=lambda values: broken(values)), "watching"),
    ]
    for make, callback, text in cases:
        with pytest.warns(UserWarning, match=text) as seen:
            trainer, _ = fit(make(), callback)
        assert trainer.global_step == 12
        assert sum("the training goes on" in str(w.message) for w in seen) == 1
    for callback in (WatchCallback(), ThinnedCallback(check=True)):
        with pytest.warns(UserWarning, match="ValueError: never evaluated"):
            assert fit_dicts(Late(), callback).global_step == 8


def test_ids_that_end_in_the_middle_of_a_training():
    seen = []

    def ids(batch):
        seen.append(len(batch["id"]))
        if len(seen) > 3:
            raise KeyError("id")
        return batch["id"]

    net = WithoutForward()
    net.layers[2] = thinned.nn.Dropout(0.3)
    with pytest.warns(UserWarning, match="keying by samples ends here, and the training goes on"):
        trainer = fit_dicts(net, ThinnedCallback(key=0, samples=ids))
    assert trainer.global_step == 8
    assert len(seen) == 4
    with pytest.raises(KeyError):  # in the first batch: an argument that cannot be used
        fit_dicts(net, ThinnedCallback(key=0, samples=lambda batch: batch["ids"]))


def test_manual_optimization_is_refused_at_the_start():
    net = WithoutForward()
    net.automatic_optimization = False
    with pytest.raises(thinned.InputError, match="optimizes by itself; pass forward="):
        fit_dicts(net, WatchCallback())
