"""The training loop, for one network or for a whole population."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import InputError
from .augment import augment
from .data import Rows, Split, Task, epoch_order
from .network_group import NetworkGroup, SingleNetwork
from .population import Population, shared_structure
from .recipe import Recipe
from .updates import Updates, gradient_norms, rate_factor

_WORDS_AHEAD = 1 << 21  # random 32-bit words drawn ahead for one layer
_ROWS_AT_ONCE = 40_000  # rows times networks in one evaluation
DIVERGENCE_FACTOR = 1e4  # a loss above this multiple of the first epoch's has diverged


@dataclass(frozen=True)
class Score:
    """The loss and the metric of a network on one set of rows, in evaluation mode.

    Args:
        loss: The cross-entropy, or the squared error of the standardized target.
        metric: The error rate, or the RMSE in the unit of the target.

    Example:
        >>> Score(loss=0.2, metric=0.05).metric
        0.05
    """

    loss: float
    metric: float


@dataclass(kw_only=True)
class Trained:
    """A trained network: its scores, its history and what went wrong.

    Args:
        recipe: The recipe that it was trained with.
        history: One value for each epoch of "loss" (mean over the minibatches, as trained),
            "train_loss" and "train_metric" (evaluation mode, on a sample of the training rows),
            "val_loss", "val_metric" and "lr".
        gradients: For each epoch, the gradient norm of each weight layer that is trained.
        epochs: The number of epochs that ran.
        best_epoch: The epoch of the lowest validation loss, counted from 0.
        stopped_early: Whether early stopping ended training before the last epoch.
        diverged: The epoch in which the loss stopped being finite or exceeded 10,000 times that of
            the first epoch. None: it did not diverge.
        dead_units: The fraction of ReLU units that are 0 on every validation row; NaN without ReLU.
        scores: The scores by set of rows: "train", "val", and "test" and "extra" where present.
        seconds: The training time, divided among the networks that were trained together.
        module: A function that returns the trained ``nn.Module``, in evaluation mode.

    Example:
        >>> import numpy as np
        >>> from thinned.train import rows
        >>> x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2
        >>> split = Split(Task("classification", 2), rows(x[:40], y[:40]), rows(x[40:], y[40:]))
        >>> trained = fit(split, Recipe(epochs=2))
        >>> trained.epochs, trained.diverged, sorted(trained.scores)
        (2, None, ['train', 'val'])
    """

    recipe: Recipe
    history: dict[str, list[float]]
    gradients: list[list[float]]
    epochs: int
    best_epoch: int
    stopped_early: bool
    diverged: int | None
    dead_units: float
    scores: dict[str, Score]
    seconds: float
    module: Callable[[], nn.Module] = field(repr=False)

    @property
    def gap(self) -> float:
        """The generalization gap after the last epoch: validation loss minus training loss.

        Both losses are measured in evaluation mode.
        """
        return self.history["val_loss"][-1] - self.history["train_loss"][-1]

    def flags(self) -> list[str]:
        """Problems seen in training, as text.

        Divergence; vanishing gradients (in the median epoch, the norm of the first layer is below
        a thousandth of that of the last); exploding gradients (a norm above 1000); more than half
        of the units dead.
        """
        found = []
        if self.diverged is not None:
            found.append(f"diverged in epoch {self.diverged + 1}")
        ratios = [norms[0] / norms[-1] for norms in self.gradients if norms[-1] > 0]
        if ratios and sorted(ratios)[len(ratios) // 2] < 1e-3:
            found.append(
                "vanishing gradients: those of the first layer are below a thousandth of those of "
                "the last"
            )
        if any(not n < 1e3 for norms in self.gradients for n in norms):
            found.append("exploding gradients: the norm of a layer exceeded 1000")
        if self.dead_units > 0.5:
            found.append(f"dead units: {self.dead_units:.0%} are 0 on every validation row")
        return found


TrainProgress = Callable[[int, int], None]  # called with (networks, epochs) just trained
# a score of the outputs [n, outputs] of a network for the targets [n] of a task
Measure = Callable[[Tensor, Tensor, Task], float]


def fit(
    split: Split,
    recipe: Recipe,
    net: nn.Module | None = None,
    progress: TrainProgress | None = None,
) -> Trained:
    """Train one network.

    A mask is a function of ``recipe.seed``, the layer, the step and the sample id, so a run can be
    repeated exactly.

    Args:
        split: The rows to train, validate and score on.
        recipe: How the network is built and trained.
        net: The network to train, in place of the one that ``recipe.network`` describes:
            [n, features] in, [n, outputs] out.
        progress: Called after each epoch with (networks, epochs): how many networks were trained
            for how many epochs since the last call.

    Returns:
        The trained network with its scores and history.

    Raises:
        InputError: Where the recipe does not fit the data, such as image augmentation of tables.

    Example:
        >>> from thinned import presets
        >>> import numpy as np
        >>> from thinned.train import rows
        >>> x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2
        >>> split = Split(Task("classification", 2), rows(x[:40], y[:40]), rows(x[40:], y[40:]))
        >>> recipe = Recipe(drops=(None, presets.dropout(0.3)), epochs=3)
        >>> trained = fit(split, recipe)
        >>> len(trained.history["val_loss"])
        3
    """
    return _train(SingleNetwork(recipe, split, net), split, progress)[0]


def fit_population(
    split: Split,
    recipes: Sequence[Recipe],
    progress: TrainProgress | None = None,
    measure: Measure | None = None,
) -> list[Trained]:
    """Train many networks on the same rows, in batched passes where possible.

    Multilayer perceptrons that share a structure (architecture, kind of optimizer, epochs, batch
    size, shuffle) form a population and are trained in one batched pass. Each member of a
    population, that is each of its networks, gets the weights, batches and masks that :func:`fit`
    gives to its recipe. The other networks are trained one by one.

    Args:
        split: The rows to train, validate and score on.
        recipes: The recipes, one for each network.
        progress: Called after each epoch of a group with (networks, epochs).
        measure: A function of (outputs [n, outputs], targets [n], task) that gives the metric of
            the final scores. None: the error rate or the RMSE.

    Returns:
        The trained networks, in the order of ``recipes``.

    Raises:
        InputError: Where a recipe does not fit the data.

    Example:
        >>> from thinned import presets
        >>> import numpy as np
        >>> from thinned.train import rows
        >>> x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2
        >>> split = Split(Task("classification", 2), rows(x[:40], y[:40]), rows(x[40:], y[40:]))
        >>> rates = (0.0, 0.2, 0.5)
        >>> recipes = [Recipe(drops=(None, presets.dropout(p)), epochs=2) for p in rates]
        >>> len(fit_population(split, recipes))
        3
    """
    results: dict[int, Trained] = {}
    for group in group_recipes(recipes):
        members = [recipes[i] for i in group]
        networks: NetworkGroup
        if shared_structure(members[0]) is not None:
            networks = Population(members, split)
        else:
            networks = SingleNetwork(members[0], split)
        results.update(zip(group, _train(networks, split, progress, measure), strict=True))
    return [results[i] for i in range(len(recipes))]


def group_recipes(recipes: Sequence[Recipe]) -> list[list[int]]:
    """The indices of the recipes that are trained together, similar recipes next to each other.

    Updates and noise are computed for runs of equal settings, so the order decides how many calls
    a step takes; it does not change the results.
    """
    populations: dict[object, list[int]] = {}
    alone: list[list[int]] = []
    for i, recipe in enumerate(recipes):
        shared = shared_structure(recipe)
        if shared is None:
            alone.append([i])
        else:
            populations.setdefault(shared, []).append(i)
    similarity = lambda i: (  # noqa: E731
        repr(recipes[i].optimizer),
        recipes[i].seed,
        bool(recipes[i].l1),
        bool(recipes[i].l2),
        bool(recipes[i].max_norm),
        [
            type(recipes[i].drop(p) and recipes[i].drop(p).law).__name__  # type: ignore[union-attr]
            for p in range(len(recipes[i].drops))
        ],
    )
    return [sorted(group, key=similarity) for group in populations.values()] + alone


def batch_ranges(n: int, size: int) -> list[tuple[int, int]]:
    """The (start, stop) of each batch of ``n`` rows.

    A last batch of a single row is merged with the one before it, because batch normalization
    needs two.
    """
    cuts = list(range(0, n, size))
    if len(cuts) > 1 and n - cuts[-1] == 1:
        cuts.pop()
    return list(zip(cuts, [*cuts[1:], n], strict=True))


class _TrainingMonitor:
    """Records losses, gradients, early stopping and divergence after each epoch, for m networks."""

    def __init__(self, networks: NetworkGroup, split: Split) -> None:
        m = len(networks.recipes)
        self.networks, self.split = networks, split
        names = ("loss", "train_loss", "train_metric", "val_loss", "val_metric", "lr")
        self.history: list[dict[str, list[float]]] = [
            {name: [] for name in names} for _ in range(m)
        ]
        self.gradients: list[list[list[float]]] = [[] for _ in range(m)]
        self.best_epoch = [0] * m
        self.diverged: list[int | None] = [None] * m
        # the epoch in which a network stopped early or diverged
        self.ended: list[int | None] = [None] * m
        # a frozen layer has no gradient, which must not count as a vanishing one
        self.layers = sorted({parameter.layer for parameter in networks.parameters})
        self.saved: list[list[Tensor] | None] = [None] * m
        # about as many training rows as validation rows, so that an evaluation costs no more
        every = max(1, len(split.train) // max(len(split.val), 1))
        self.train_sample = split.train.take(slice(None, None, every))

    def epoch(self, epoch: int, loss: Tensor, norms: Tensor, factors: list[float]) -> bool:
        """Record an epoch; False when every network has stopped early or diverged."""
        networks, split = self.networks, self.split
        train, val = (score(networks, rows, split.task) for rows in (self.train_sample, split.val))
        for m, recipe in enumerate(networks.recipes):
            if self.ended[m] is not None:
                continue
            values = (loss[m].item(), *train[m], *val[m], recipe.optimizer.lr * factors[m])
            for name, value in zip(self.history[m], values, strict=True):
                self.history[m][name].append(value)
            self.gradients[m].append(norms[m, self.layers].tolist())
            history = self.history[m]
            if history["val_loss"][-1] < history["val_loss"][self.best_epoch[m]] or epoch == 0:
                self.best_epoch[m] = epoch
                if recipe.patience is not None:
                    self.saved[m] = networks.save(m)
            grown = not loss[m].item() < DIVERGENCE_FACTOR * max(history["loss"][0], 1.0)
            # minibatch losses are taken before their steps, so that only the evaluations show what
            # the last step did
            if grown or not (math.isfinite(train[m][0]) and math.isfinite(val[m][0])):
                self.diverged[m] = self.ended[m] = epoch
                # the population trains on, this member too: keep the weights of this epoch
                if self.saved[m] is None:
                    self.saved[m] = networks.save(m)
            elif (
                recipe.patience is not None
                and epoch - self.best_epoch[m] >= recipe.patience
                and epoch + 1 < recipe.epochs
            ):
                self.ended[m] = epoch
        return any(e is None for e in self.ended)

    def restore(self) -> None:
        """Restore the best weights after early stopping, and the weights at divergence."""
        for m, saved in enumerate(self.saved):
            if saved is not None:
                self.networks.restore(m, saved)


def _train(
    networks: NetworkGroup,
    split: Split,
    progress: TrainProgress | None,
    measure: Measure | None = None,
) -> list[Trained]:
    first, began = networks.recipes[0], time.perf_counter()
    n = len(split.train)
    cuts = batch_ranges(n, first.batch_size)
    _check(networks, split, cuts)
    updates = Updates(networks, first.epochs * len(cuts))
    monitor = _TrainingMonitor(networks, split)
    widest = max((p.tensor.shape[-1] for p in networks.parameters), default=1)
    ahead = max(1, _WORDS_AHEAD // (first.batch_size * widest))  # batches drawn at once
    smoothing = torch.tensor([r.label_smoothing for r in networks.recipes])
    augments = [r.augment for r in networks.recipes]
    for epoch in range(first.epochs):
        index = epoch_order(n, first.shuffle, epoch)
        rows = split.train.take(index)
        total = torch.zeros(len(networks.recipes))
        for i, (start, stop) in enumerate(cuts):
            step = epoch * len(cuts) + i
            if i % ahead == 0:
                coming = cuts[i : i + ahead]
                steps = torch.cat(
                    [torch.full((b - a,), step + k) for k, (a, b) in enumerate(coming)]
                )
                networks.prepare(rows.ids[start : coming[-1][1]], steps)
            x, y, ids = rows.x[start:stop], rows.y[start:stop], rows.ids[start:stop]
            if any(augments):
                x = augment(x, augments, split.image, first.seed, step, ids)
            updates.clear()
            loss = mean_losses(networks.forward(x, ids, step), y, split.task, smoothing)
            loss.sum().backward()
            total += loss.detach() * ((stop - start) / n)
            updates.step(step)
        norms = gradient_norms(networks)
        with torch.no_grad():
            factors = [rate_factor(r.optimizer, step, updates.total) for r in networks.recipes]
            running = monitor.epoch(epoch, total, norms, factors)
        if progress:
            progress(len(networks.recipes), 1)
        if not running:
            if progress:
                progress(len(networks.recipes), first.epochs - epoch - 1)
            break
    updates.clear()
    monitor.restore()
    networks.finish()
    return _results(networks, split, monitor, time.perf_counter() - began, measure)


def _check(networks: NetworkGroup, split: Split, cuts: list[tuple[int, int]]) -> None:
    """Raise :class:`thinned.InputError` where the recipes do not fit the data."""
    if not len(split.train) or not len(split.val):
        raise InputError(
            "training needs rows to train on and to validate on, but got "
            f"{len(split.train)} and {len(split.val)}"
        )
    if split.task.kind == "regression" and any(r.label_smoothing for r in networks.recipes):
        raise InputError("label_smoothing is for classification; leave it at 0 for regression")
    if any(r.augment.moves_images for r in networks.recipes) and split.image is None:
        raise InputError(
            "augment.shift and augment.rotate are for images; use augment.noise for other rows"
        )
    normed = any(getattr(r.network, "norm", False) for r in networks.recipes)
    if normed and any(stop - start == 1 for start, stop in cuts):
        size, n = networks.recipes[0].batch_size, len(split.train)
        raise InputError(
            f"batch normalization needs batches of at least 2 rows, but batch_size {size} cuts {n} "
            "training rows into batches of 1; raise batch_size, or remove 'norm' from order"
        )
    if not networks.parameters:
        raise InputError("the network has no parameter to train; set requires_grad on some")


@torch.no_grad()
def _results(
    networks: NetworkGroup,
    split: Split,
    monitor: _TrainingMonitor,
    seconds: float,
    measure: Measure | None,
) -> list[Trained]:
    parts = {"train": split.train, "val": split.val, "test": split.test, "extra": split.extra}
    scores = {
        name: score(networks, rows, split.task, measure)
        for name, rows in parts.items()
        if rows is not None
    }
    dead_units = networks.dead_units(split.val.x[: _ROWS_AT_ONCE // len(networks.recipes) + 1])
    ran = [len(h["loss"]) for h in monitor.history]
    return [
        Trained(
            recipe=recipe,
            history=monitor.history[m],
            gradients=monitor.gradients[m],
            epochs=ran[m],
            best_epoch=monitor.best_epoch[m],
            stopped_early=monitor.ended[m] is not None and monitor.diverged[m] is None,
            diverged=monitor.diverged[m],
            dead_units=dead_units[m],
            scores={name: Score(*values[m]) for name, values in scores.items()},
            seconds=seconds * ran[m] / sum(ran),
            module=lambda m=m: networks.module(m),  # type: ignore[misc]
        )
        for m, recipe in enumerate(networks.recipes)
    ]


def mean_losses(out: Tensor, y: Tensor, task: Task, smoothing: Tensor | None = None) -> Tensor:
    """The mean loss of each network over the batch: [m], from outputs [m, b, outputs]."""
    if task.kind == "regression":
        return (out[..., 0] - y).square().mean(1)
    # [outputs, m, b]: over the first axis log_softmax runs 20 times faster
    log = F.log_softmax(out.permute(2, 0, 1).contiguous(), 0)
    losses = -log.gather(0, y.expand(1, len(out), -1))[0]
    weights = None if task.class_weights is None else torch.tensor(task.class_weights)[y]
    loss = (losses if weights is None else losses * weights).mean(1)
    if smoothing is None or not smoothing.any():
        return loss
    mean_log = log.mean(0) if weights is None else log.mean(0) * weights
    # of networks without smoothing the mean may be infinite, and 0 times inf is NaN
    uniform = torch.where(smoothing > 0, mean_log.mean(1), 0.0)
    return (1.0 - smoothing) * loss - smoothing * uniform


def score(
    networks: NetworkGroup, rows: Rows, task: Task, measure: Measure | None = None
) -> list[tuple[float, float]]:
    """(loss, metric) of each network on ``rows``, in evaluation mode.

    ``measure`` takes the place of the metric. Sums are in float64, so that equal counts of wrong
    rows are equal numbers.
    """
    m = len(networks.recipes)
    size = max(64, _ROWS_AT_ONCE // m)
    loss, metric = torch.zeros(m, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)
    outputs: list[Tensor] = []
    for start in range(0, len(rows), size):
        x, y = rows.x[start : start + size], rows.y[start : start + size]
        out = networks.evaluate(x)
        loss += mean_losses(out, y, task).double() * len(y)
        if measure is not None:
            outputs.append(out)
            continue
        wrong = (out[..., 0] - y).square() if task.kind == "regression" else out.argmax(-1) != y
        metric += wrong.sum(1, dtype=torch.float64)
    loss, metric = loss / len(rows), metric / len(rows)
    if measure is not None:
        every = torch.cat(outputs, 1)
        metric = torch.tensor([measure(out, rows.y, task) for out in every], dtype=torch.float64)
    elif task.kind == "regression":
        metric = metric.sqrt() * task.scale
    # argmax returns a class for NaN too, so the error rate would look valid
    metric = torch.where(loss.isfinite(), metric, math.nan)
    return list(zip(loss.tolist(), metric.tolist(), strict=True))
