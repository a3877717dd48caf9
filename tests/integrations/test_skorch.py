"""Real small trainings under skorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("skorch", reason="skorch is not installed")

import sklearn.base
import skorch

import thinned
from thinned.integrations.skorch import ThinnedCallback, WatchCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # skorch's own


class Net(nn.Module):
    def __init__(self, p=0.5) -> None:
        super().__init__()
        self.first, self.drop, self.last = (
            nn.Linear(10, 16),
            thinned.nn.Dropout(p),
            nn.Linear(16, 3),
        )
        self.rates = []

    def forward(self, x):
        if self.training:
            self.rates.append(self.drop.p)
        return self.last(self.drop(F.relu(self.first(x)))).softmax(-1)


def data():
    x = np.random.default_rng(1).standard_normal((80, 10)).astype("float32")
    return x, x[:, :3].argmax(1)


def fitted(*callbacks, module=Net, x=None, epochs=2, seed=0, lr=0.1, **options):
    torch.manual_seed(0)
    net = skorch.NeuralNetClassifier(
        module,
        max_epochs=epochs,
        batch_size=16,
        lr=lr,
        verbose=0,
        callbacks=list(callbacks),
        **options,
    )
    net.initialize()
    torch.manual_seed(seed)
    return net.partial_fit(data()[0] if x is None else x, data()[1])


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def test_watched_is_the_same():
    values, callback = [], WatchCallback(every=2, log=lambda v: values.append(v))
    plain, watched = fitted(), fitted(callback)
    assert torch.equal(weights(plain), weights(watched))
    watch = callback.watch_
    samples = [r for r in watch.history if r["what"] == "sample"]
    assert [r["step"] for r in samples] == [1, 3, 5, 7]  # 64 of 80 rows train, in 4 batches
    assert [r["step"] for r in watch.history if r["what"] == "validation"] == [4, 8]
    assert not watch.findings.of("L25")
    assert watch.history[-1]["loss"] == watched.history[-1, "valid_loss"]
    assert samples[0]["rates"]["drop"]["nominal"] == 0.5
    assert set(samples[0]["gradients"]) == {"first", "last"}
    assert len(values) == 6
    assert samples[0]["loss"] > 0
    x, y = torch.tensor(data()[0][:16]), torch.tensor(data()[1][:16])
    once = WatchCallback(every=1)
    net = fitted(once, epochs=1, train_split=None, iterator_train__shuffle=False, lr=0.0)
    net.module_.eval()
    assert once.watch_.history[0]["eval"] == pytest.approx(
        F.nll_loss(net.module_(x).log(), y).item(), rel=1e-5
    )


def test_keys_schedules_and_clones():
    ends = [weights(fitted(ThinnedCallback(key=3), seed=seed, train_split=None)) for seed in (1, 2)]
    assert torch.equal(*ends)
    free = [weights(fitted(ThinnedCallback(), seed=seed, train_split=None)) for seed in (1, 2)]
    assert not torch.equal(*free)
    net = fitted(ThinnedCallback(key=3), epochs=1, train_split=None)
    with pytest.raises(thinned.InputError, match="no key"):
        thinned.key_of(net.module_)
    net.partial_fit(*data())  # goes on counting: two fits of one epoch are one of two
    assert torch.equal(weights(net), ends[0])
    rates = fitted(
        ThinnedCallback(), module=lambda: Net(thinned.algebra.schedule.Linear(0.0, 0.8, 8))
    ).module_.rates
    assert rates == pytest.approx([0.1 * i for i in range(8)])
    both = sklearn.base.clone(
        skorch.NeuralNetClassifier(Net, callbacks=[ThinnedCallback(key=3), WatchCallback(every=5)])
    )
    assert (both.callbacks[0].key, both.callbacks[1].every) == (3, 5)


def test_a_fit_after_an_error():
    class Failing(Net):
        fails = True

        def forward(self, x):
            if self.fails:
                raise RuntimeError("out of memory")
            return super().forward(x)

    net = skorch.NeuralNetClassifier(
        Failing, max_epochs=1, verbose=0, callbacks=[ThinnedCallback(key=3)]
    ).initialize()
    with pytest.raises(RuntimeError, match="out of memory"):
        net.partial_fit(*data())
    Failing.fails = False
    net.partial_fit(*data())
    with pytest.raises(thinned.InputError, match="no key"):
        thinned.key_of(net.module_)


class Leaky(Net):
    def forward(self, x, more=0.0):
        return super().forward(F.dropout(x, 0.2) + more)


def test_checked_at_the_start():
    callback = ThinnedCallback(check=True)
    with pytest.warns(UserWarning, match="L1 dropout-without-training"):
        fitted(
            callback, module=Leaky, x={"x": data()[0], "more": data()[0] * 0}, epochs=1
        )  # named inputs
    assert "L1" in callback.findings_.codes
    right = ThinnedCallback(check=True)
    checked = fitted(right)
    assert right.findings_ is not None
    assert "L1" not in right.findings_.codes
    assert torch.equal(weights(checked), weights(fitted()))


def test_no_callback_ends_a_fit():
    def broken(values):
        raise ValueError("the user's own")

    with pytest.warns(UserWarning, match="watching ends here, and the training goes on"):
        net = fitted(WatchCallback(log=broken))
    assert torch.equal(weights(net), weights(fitted()))
