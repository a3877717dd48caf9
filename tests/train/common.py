"""The data and the recipes of the tests of training."""

from __future__ import annotations

import numpy as np
import torch

from thinned import presets
from thinned.train import (
    Augment,
    Mlp,
    Optimizer,
    Recipe,
    Split,
    Task,
    rows,
)


def blobs(n=203, features=12, classes=3, seed=0, task="classification", image=None):
    """Gaussian blobs that overlap; the validation rows are the last fifth."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, features))
    y = rng.integers(0, classes, n)
    x = centers[y] + 1.2 * rng.normal(size=(n, features))
    kind = Task(task, classes)
    if task == "regression":
        y = np.sin(x[:, 0]) + 0.5 * x[:, 1] + 0.1 * rng.normal(size=n)
        kind = Task(task, 1, scale=float(y.std()))
        y = (y - y.mean()) / y.std()
    cut = n - n // 5
    return Split(
        kind, rows(x[:cut], y[:cut]), rows(x[cut:], y[cut:], np.arange(cut, n)), image=image
    )


SMALL = Mlp((10, 6))

d = presets.dropout

BASE = Recipe(SMALL, optimizer=Optimizer(lr=5e-3), epochs=3, batch_size=20)

VARIANTS = {
    "plain": BASE,
    "dropout": BASE.at(drops=(d(0.2), d(0.5), d(0.3))),
    "hidden-only": BASE.at(drops=(None, d(0.5), d(0.5))),
    "classic": BASE.at(drops=(d(0.1, "classic"), d(0.5, "classic"), None)),
    "gaussian": BASE.at(drops=(None, presets.gaussian_dropout(0.4), presets.gaussian_dropout(0.2))),
    "uniform": BASE.at(drops=(None, presets.uniform_dropout(0.5), presets.uniform_dropout(0.2))),
    "everything": BASE.at(drops=(None, d(1.0), None)),
    "dropconnect": BASE.at(drop_connect=0.4),
    "dropconnect-light": BASE.at(drop_connect=0.1),
    "l1": BASE.at(l1=1e-3),
    "l2": BASE.at(l2=1e-2, l1=1e-4),
    "max-norm": BASE.at(max_norm=0.5),
    "clip": BASE.at(clip=0.05),
    "smoothing": BASE.at(label_smoothing=0.1),
    "slow": BASE.at(optimizer=Optimizer(lr=1e-3, weight_decay=0.1)),
    "layers": BASE.at(optimizer=Optimizer(lr=5e-3, layer_lr=(0.1, 1.0))),
    "patience": BASE.at(patience=1, optimizer=Optimizer(lr=0.1)),
    "other-seed": BASE.at(seed=3, drops=(d(0.2), d(0.5), d(0.3))),
    "noisy": BASE.at(augment=Augment(noise=0.3)),
    "noisy-other-seed": BASE.at(augment=Augment(noise=0.3), seed=3),
    "norm": BASE.at(
        network=Mlp((10, 6), order=("linear", "norm", "act", "drop")), drops=(None, d(0.5), d(0.2))
    ),
    "norm-after": BASE.at(
        network=Mlp((10, 6), order=("linear", "act", "norm", "drop")), drops=(None, d(0.5))
    ),
    "drop-norm": BASE.at(
        network=Mlp((10, 6), order=("linear", "act", "drop", "norm")), drops=(None, d(0.5), d(0.2))
    ),
    "tanh": BASE.at(network=Mlp((7,), activation="tanh"), drop_connect=0.3),
    **{
        f"opt-{n}": BASE.at(optimizer=Optimizer(n))
        for n in ("adamw", "rmsprop", "adadelta", "adagrad", "sgd")
    },
    "nesterov": BASE.at(
        optimizer=Optimizer("sgd", 0.05, momentum=0.9, nesterov=True, warmup=0.2, decay="cosine")
    ),
}


def equal(member, alone):
    """Weights, batches and masks are the same, up to the rounding of batched products."""
    for key in alone.history:
        one_row = (
            0.03 if key.endswith("metric") else 0.0
        )  # the class of a row on the boundary may differ
        np.testing.assert_allclose(
            member.history[key], alone.history[key], rtol=2e-3, atol=2e-4 + one_row, err_msg=key
        )
    np.testing.assert_allclose(member.gradients, alone.gradients, rtol=2e-2, atol=2e-4)
    assert (member.epochs, member.best_epoch, member.stopped_early) == (
        alone.epochs,
        alone.best_epoch,
        alone.stopped_early,
    )
    assert member.diverged == alone.diverged
    x = blobs().val.x
    torch.testing.assert_close(member.module()(x), alone.module()(x), rtol=2e-3, atol=2e-3)
