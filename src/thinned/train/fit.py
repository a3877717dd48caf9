"""The training loop, for one network or for many."""

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
from .data import Rows, Split, Task, order
from .recipe import Recipe
from .stack import Stack, structure
from .trainee import Solo, Trainee
from .updates import Updates, gradient_norms, rate_factor

_LOOK = 1 << 21  # words drawn ahead for one place
_ROWS = 40_000  # rows times networks in one evaluation
DIVERGED = 1e4  # times the first epoch's loss


@dataclass(frozen=True)
class Score:
    """``loss``: cross-entropy, or squared error of the standardised target. ``metric``: error rate,
    or RMSE in its unit.
    """

    loss: float
    metric: float


@dataclass
class Trained:
    """What became of one recipe.

    ``history``: one value an epoch of ``loss`` (minibatches, as trained), ``train_loss``, ``train_metric`` (evaluation
    mode, on some training rows), ``val_loss``, ``val_metric``, ``lr``. ``gradients``: each epoch's gradient norm of
    each weight layer that is trained. ``epochs``: how many ran. ``best``: the epoch of the lowest validation loss, from
    0. ``stopped``: did early stopping end it before its last epoch. ``diverged``: the epoch in which the loss stopped
    being a number or grew past all bounds. ``dead``: the share of ReLU units that are 0 on every validation row.
    ``seconds``: its share of the time.
    """

    recipe: Recipe
    history: dict[str, list[float]]
    gradients: list[list[float]]
    epochs: int
    best: int
    stopped: bool
    diverged: int | None
    dead: float
    scores: dict[str, Score]
    seconds: float
    module: Callable[[], nn.Module] = field(repr=False)

    @property
    def gap(self) -> float:
        """The generalisation gap at the end: validation loss less training loss, both in evaluation
        mode.
        """
        return self.history["val_loss"][-1] - self.history["train_loss"][-1]

    def flags(self) -> list[str]:
        """What went wrong in training, in words: divergence, vanishing or exploding gradients, dead
        units.
        """
        found = []
        if self.diverged is not None:
            found.append(f"diverged in epoch {self.diverged + 1}")
        ratios = [norms[0] / norms[-1] for norms in self.gradients if norms[-1] > 0]
        if ratios and sorted(ratios)[len(ratios) // 2] < 1e-3:
            found.append(
                "vanishing gradients: the first layer's are under a thousandth of the last's"
            )
        if any(not n < 1e3 for norms in self.gradients for n in norms):
            found.append("exploding gradients: a layer's norm passed 1000")
        if self.dead > 0.5:
            found.append(f"dead units: {self.dead:.0%} are 0 on every validation row")
        return found


TrainProgress = Callable[[int, int], None]  # (networks, epochs) that have just been trained


def fit(
    split: Split, recipe: Recipe, net: nn.Module | None = None, watch: TrainProgress | None = None
) -> Trained:
    """Train one network: ``net``, or the one that ``recipe`` names. See :class:`Trained`.

    Masks are keyed by ``recipe.seed``, the layer, the step and the row's id. ``watch`` is called
    after each epoch.
    """
    return _train(Solo(recipe, split, net), split, watch)[0]


def fit_population(
    split: Split, recipes: Sequence[Recipe], watch: TrainProgress | None = None
) -> list[Trained]:
    """Train many networks on the same rows; results in the order of ``recipes``.

    Recipes that share a structure (architecture, kind of optimizer, epochs, batches) run in one
    batched pass; a member gets the weights, batches and masks that :func:`fit` would give it. The
    others run one by one.
    """
    results: dict[int, Trained] = {}
    for group in grouped(recipes):
        some = [recipes[i] for i in group]
        trainee: Trainee = (
            Stack(some, split) if structure(some[0]) is not None else Solo(some[0], split)
        )
        results.update(zip(group, _train(trainee, split, watch), strict=True))
    return [results[i] for i in range(len(recipes))]


def grouped(recipes: Sequence[Recipe]) -> list[list[int]]:
    """The indices of recipes that are trained together, neighbours in a stack as alike as can be."""
    stacks: dict[object, list[int]] = {}
    alone: list[list[int]] = []
    for i, recipe in enumerate(recipes):
        shared = structure(recipe)
        if shared is None:
            alone.append([i])
        else:
            stacks.setdefault(shared, []).append(i)
    alike = lambda i: (  # noqa: E731
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
    return [sorted(group, key=alike) for group in stacks.values()] + alone


def batches(n: int, size: int) -> list[tuple[int, int]]:
    """Cut ``n`` rows into batches; a last batch of one row joins its neighbour, because batch
    normalisation needs two.
    """
    cuts = list(range(0, n, size))
    if len(cuts) > 1 and n - cuts[-1] == 1:
        cuts.pop()
    return list(zip(cuts, [*cuts[1:], n], strict=True))


class _Monitor:
    """What is written down after each epoch, for each of m networks."""

    def __init__(self, trainee: Trainee, split: Split) -> None:
        m = len(trainee.recipes)
        self.trainee, self.split = trainee, split
        names = ("loss", "train_loss", "train_metric", "val_loss", "val_metric", "lr")
        self.history: list[dict[str, list[float]]] = [
            {name: [] for name in names} for _ in range(m)
        ]
        self.gradients: list[list[list[float]]] = [[] for _ in range(m)]
        self.best = [0] * m
        self.diverged: list[int | None] = [None] * m
        self.ended: list[int | None] = [None] * m  # the last epoch, where it was not the recipe's
        self.layers = sorted(
            {part.layer for part in trainee.parts}
        )  # a frozen layer has no gradient to vanish
        self.kept: list[list[Tensor] | None] = [None] * m
        every = max(1, len(split.train) // max(len(split.val), 1))
        self.some = split.train.take(slice(None, None, every))

    def epoch(self, epoch: int, loss: Tensor, norms: Tensor, factors: list[float]) -> bool:
        """Write down an epoch; False when every network has ended."""
        trainee, split = self.trainee, self.split
        train, val = (score(trainee, rows, split.task) for rows in (self.some, split.val))
        for m, recipe in enumerate(trainee.recipes):
            if self.ended[m] is not None:
                continue
            values = (loss[m].item(), *train[m], *val[m], recipe.optimizer.lr * factors[m])
            for name, value in zip(self.history[m], values, strict=True):
                self.history[m][name].append(value)
            self.gradients[m].append(norms[m, self.layers].tolist())
            history = self.history[m]
            if history["val_loss"][-1] < history["val_loss"][self.best[m]] or epoch == 0:
                self.best[m] = epoch
                if recipe.patience is not None:
                    self.kept[m] = trainee.save(m)
            grown = not loss[m].item() < DIVERGED * max(history["loss"][0], 1.0)
            if grown or not (
                math.isfinite(train[m][0]) and math.isfinite(val[m][0])
            ):  # the last step shows in these alone
                self.diverged[m] = self.ended[m] = epoch
                if self.kept[m] is None:  # the others of a stack go on, and it with them
                    self.kept[m] = trainee.save(m)
            elif (
                recipe.patience is not None
                and epoch - self.best[m] >= recipe.patience
                and epoch + 1 < recipe.epochs
            ):
                self.ended[m] = epoch
        return any(e is None for e in self.ended)

    def restore(self) -> None:
        """Early stopping's best weights; the weights at which a network diverged."""
        for m, saved in enumerate(self.kept):
            if saved is not None:
                self.trainee.restore(m, saved)


def _train(trainee: Trainee, split: Split, watch: TrainProgress | None) -> list[Trained]:
    first, began = trainee.recipes[0], time.perf_counter()
    n = len(split.train)
    cuts = batches(n, first.batch_size)
    _check(trainee, split, cuts)
    updates = Updates(trainee, first.epochs * len(cuts))
    monitor = _Monitor(trainee, split)
    widest = max((p.tensor.shape[-1] for p in trainee.parts), default=1)
    ahead = max(1, _LOOK // (first.batch_size * widest))  # batches drawn for at once
    smoothing = torch.tensor([r.label_smoothing for r in trainee.recipes])
    moves = [r.augment for r in trainee.recipes]
    for epoch in range(first.epochs):
        index = order(n, first.shuffle, epoch)
        rows = split.train.take(index)
        total = torch.zeros(len(trainee.recipes))
        for i, (start, stop) in enumerate(cuts):
            step = epoch * len(cuts) + i
            if i % ahead == 0:
                some = cuts[i : i + ahead]
                steps = torch.cat([torch.full((b - a,), step + k) for k, (a, b) in enumerate(some)])
                trainee.prepare(rows.ids[start : some[-1][1]], steps)
            x, y, ids = rows.x[start:stop], rows.y[start:stop], rows.ids[start:stop]
            if any(moves):
                x = augment(x, moves, split.image, first.seed, step, ids)
            updates.clear()
            loss = losses(trainee.forward(x, ids, step), y, split.task, smoothing)
            loss.sum().backward()
            total += loss.detach() * ((stop - start) / n)
            updates.step(step)
        norms = gradient_norms(trainee)
        with torch.no_grad():
            factors = [rate_factor(r.optimizer, step, updates.total) for r in trainee.recipes]
            going = monitor.epoch(epoch, total, norms, factors)
        if watch:
            watch(len(trainee.recipes), 1)
        if not going:
            if watch:
                watch(len(trainee.recipes), first.epochs - epoch - 1)
            break
    updates.clear()
    monitor.restore()
    trainee.finish()
    return _results(trainee, split, monitor, time.perf_counter() - began)


def _check(trainee: Trainee, split: Split, cuts: list[tuple[int, int]]) -> None:
    if not len(split.train) or not len(split.val):
        raise InputError(
            f"training needs rows to train on and to validate on, but got {len(split.train)} and {len(split.val)}"
        )
    if split.task.kind == "regression" and any(r.label_smoothing for r in trainee.recipes):
        raise InputError("label_smoothing is for classification; leave it at 0 for regression")
    if any(r.augment.moves for r in trainee.recipes) and split.image is None:
        raise InputError(
            "augment.shift and augment.rotate are for images; use augment.noise for other rows"
        )
    normed = any(getattr(r.network, "norm", False) for r in trainee.recipes)
    if normed and any(stop - start == 1 for start, stop in cuts):
        size, n = trainee.recipes[0].batch_size, len(split.train)
        raise InputError(
            f"batch normalisation needs batches of at least 2 rows, but batch_size {size} cuts {n} training rows into "
            "batches of 1; raise batch_size, or take 'norm' out of order"
        )
    if not trainee.parts:
        raise InputError("the network has no parameter to train; set requires_grad on some")


@torch.no_grad()
def _results(trainee: Trainee, split: Split, monitor: _Monitor, seconds: float) -> list[Trained]:
    parts = {"train": split.train, "val": split.val, "test": split.test, "extra": split.extra}
    scores = {
        name: score(trainee, rows, split.task) for name, rows in parts.items() if rows is not None
    }
    dead = trainee.dead(split.val.x[: _ROWS // len(trainee.recipes) + 1])
    ran = [len(h["loss"]) for h in monitor.history]
    return [
        Trained(
            recipe=recipe,
            history=monitor.history[m],
            gradients=monitor.gradients[m],
            epochs=ran[m],
            best=monitor.best[m],
            stopped=monitor.ended[m] is not None and monitor.diverged[m] is None,
            diverged=monitor.diverged[m],
            dead=dead[m],
            scores={name: Score(*values[m]) for name, values in scores.items()},
            seconds=seconds * ran[m] / sum(ran),
            module=lambda m=m: trainee.module(m),  # type: ignore[misc]
        )
        for m, recipe in enumerate(trainee.recipes)
    ]


def losses(out: Tensor, y: Tensor, task: Task, smoothing: Tensor | None = None) -> Tensor:
    """The mean loss of each network over the batch: [m], from outputs [m, b, outputs]."""
    if task.kind == "regression":
        return (out[..., 0] - y).square().mean(1)
    log = F.log_softmax(
        out.permute(2, 0, 1).contiguous(), 0
    )  # [outputs, m, b]: over the first axis it runs 20 times faster
    loss = -log.gather(0, y.expand(1, len(out), -1))[0].mean(1)
    if smoothing is None or not smoothing.any():
        return loss
    even = torch.where(
        smoothing > 0, log.mean((0, 2)), 0.0
    )  # 0 times inf is NaN where a neighbour alone is smoothed
    return (1.0 - smoothing) * loss - smoothing * even


def score(trainee: Trainee, rows: Rows, task: Task) -> list[tuple[float, float]]:
    """(loss, metric) of each network on ``rows``, in evaluation mode."""
    m = len(trainee.recipes)
    size = max(64, _ROWS // m)
    loss, metric = torch.zeros(m), torch.zeros(m)
    for start in range(0, len(rows), size):
        x, y = rows.x[start : start + size], rows.y[start : start + size]
        out = trainee.evaluate(x)
        loss += losses(out, y, task) * len(y)
        wrong = (
            (out[..., 0] - y).square()
            if task.kind == "regression"
            else (out.argmax(-1) != y).float()
        )
        metric += wrong.sum(1)
    loss, metric = loss / len(rows), metric / len(rows)
    if task.kind == "regression":
        metric = metric.sqrt() * task.scale
    # argmax of NaN is a class like any other
    metric = torch.where(loss.isfinite(), metric, math.nan)
    return list(zip(loss.tolist(), metric.tolist(), strict=True))
