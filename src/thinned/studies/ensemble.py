"""The ensemble that dropout trains: the records behind the section on ensembles.

Weight scaling against Monte Carlo dropout, all subnetworks of a small network, and the masks of a
small network in training, step by step.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..algebra import Key, stream_of
from ..functional import mask
from ..nn.modes import sampling
from ..presets import dropout
from ..train import Mlp, Optimizer, Recipe, Rows, Split, Task, fit
from ..train.data import epoch_order
from ..train.fit import batch_ranges, mean_losses
from ..train.network_group import SingleNetwork
from ..train.updates import Updates
from .design import PILOT_LR, Settings, context
from .records import Record

SAMPLES = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
ROWS = 400  # test rows for Monte Carlo dropout
UNITS = 10  # hidden units of the network with 2^10 subnetworks
FRAMES = 60  # steps of the animation


def ensemble_records(settings: Settings, split: Split) -> Record:
    """The records behind the section on ensembles in the report."""
    return {
        "curve": monte_carlo_curve(settings, split),
        "exact": exact_ensemble(settings, split),
        "animation": animation_frames(settings, split),
    }


def score_predictions(predictions: Tensor, rows: Rows, task: Task) -> tuple[float, float]:
    """(loss, metric) of predictions: log-probabilities [n, classes] or standardized values [n]."""
    if task.kind == "regression":
        error = (predictions - rows.y).square().mean().item()
        return error, math.sqrt(error) * task.scale
    loss = F.nll_loss(predictions, rows.y).item()
    return loss, (predictions.argmax(-1) != rows.y).float().mean().item()


def ensemble_means(out: Tensor, task: Task) -> dict[str, Tensor]:
    """The arithmetic and the renormalized geometric mean of outputs [k, n, outputs].

    For regression, only the arithmetic mean.
    """
    if task.kind == "regression":
        return {"arithmetic": out[..., 0].mean(0)}
    log = F.log_softmax(out, -1)
    return {
        "arithmetic": torch.logsumexp(log, 0) - math.log(len(log)),
        "geometric": F.log_softmax(log.mean(0), -1),
    }


@torch.no_grad()
def monte_carlo_curve(settings: Settings, split: Split) -> Record:
    """One pass with scaled weights against averages of k thinned networks.

    The network is that of the study, trained at p = 0.5.
    """
    c = context(settings, split, 0, settings.lr or PILOT_LR[0])
    with torch.enable_grad():
        trained = fit(split, c.base.at(drops=c.hidden(0.5)))
    assert split.test is not None
    rows = split.test.take(slice(ROWS))
    net, x = trained.module(), rows.dense_x
    out = net(x)
    scaled = out[..., 0] if split.task.kind == "regression" else F.log_softmax(out, -1)
    network = SingleNetwork(trained.recipe, split, net)
    assert network.key is not None
    draws = []
    with sampling(net):
        for step in range(max(SAMPLES)):
            network.key.at(step, rows.ids)
            draws.append(net(x))
    drawn = torch.stack(draws)  # [k, n, outputs]
    result: Record = {
        "p": 0.5,
        "rows": len(rows),
        "scaled": score_predictions(scaled, rows, split.task),
        "samples": SAMPLES,
    }
    for k in SAMPLES:
        groups = [drawn[i : i + k] for i in range(0, len(drawn) - k + 1, k)][:20]
        for name in ("arithmetic", "geometric"):
            scored = [
                score_predictions(m[name], rows, split.task)
                for g in groups
                if name in (m := ensemble_means(g, split.task))
            ]
            if scored:
                result.setdefault(name, []).append(
                    [_spread([j[i] for j in scored]) for i in (0, 1)]
                )
    return result


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))


@torch.no_grad()
def exact_ensemble(settings: Settings, split: Split) -> Record:
    """All 1,024 subnetworks of a network with ten hidden units, weighted by their probabilities."""
    base, p = context(settings, split, 0, settings.lr or PILOT_LR[0]).base, 0.5
    recipe = base.at(network=Mlp((UNITS,)), drops=(None, dropout(p)))
    with torch.enable_grad():
        net = fit(split, recipe).module()
    assert split.test is not None
    rows, task = split.test.take(slice(1000)), split.task
    hidden = F.relu(net.linear1(rows.dense_x))  # type: ignore[operator]
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=UNITS)))  # [1024, units]
    # outputs of all subnetworks: [1024, n, outputs]
    out = torch.stack([net.linear2(hidden * m / (1 - p)) for m in masks])  # type: ignore[operator]
    log = out[..., 0] if task.kind == "regression" else F.log_softmax(out, -1)
    subnetworks = [score_predictions(predictions, rows, task) for predictions in log]
    full = net(rows.dense_x)
    scaled = full[..., 0] if task.kind == "regression" else F.log_softmax(full, -1)
    averaged = ensemble_means(out, task)  # p = 0.5: all masks are equally likely
    result: Record = {
        "units": UNITS,
        "p": p,
        "rows": len(rows),
        "subnetworks": [metric for _, metric in subnetworks],
        "scaled": score_predictions(scaled, rows, task),
        **{name: score_predictions(value, rows, task) for name, value in averaged.items()},
    }
    mean = averaged.get("geometric", averaged["arithmetic"])
    result["distance"] = (
        (mean.double().exp() - scaled.double().exp()).abs().max().item()
        if task.kind == "classification"
        else (mean - scaled).abs().max().item()
    )
    return result


def animation_frames(settings: Settings, split: Split) -> Record:
    """A small network in training: for each step the masks of one example, and the losses.

    The masks are not recorded while training; they are computed afterwards from the key.
    """
    base = context(settings, split, 0, settings.lr or PILOT_LR[0]).base
    recipe = Recipe(
        Mlp((7, 5)),
        (None, dropout(0.4), dropout(0.4)),
        optimizer=Optimizer("adam", 0.01),
        epochs=base.epochs,
        batch_size=base.batch_size,
        seed=base.seed,
        shuffle=base.shuffle,
    )
    network = SingleNetwork(recipe, split)
    cuts = batch_ranges(len(split.train), recipe.batch_size)
    updates = Updates(network, FRAMES)
    frames: list[Record] = []
    for step in range(FRAMES):
        epoch_rows = split.train.take(
            epoch_order(len(split.train), recipe.shuffle, step // len(cuts))
        )
        batch = epoch_rows.take(slice(*cuts[step % len(cuts)]))
        updates.clear()
        loss = mean_losses(
            network.forward(batch.dense_x, batch.ids, step), batch.y, split.task
        ).sum()
        loss.backward()
        updates.step(step)
        with torch.no_grad():
            after = mean_losses(network.evaluate(split.val.dense_x), split.val.y, split.task)[
                0
            ].item()
        masks = [_mask(recipe, i, width, step, batch.ids[:1]) for i, width in ((1, 7), (2, 5))]
        frames.append({"loss": loss.item(), "val": after, "kept": masks, "row": int(batch.ids[0])})
    return {"widths": [7, 5], "outputs": split.task.outputs, "p": 0.4, "frames": frames}


def _mask(recipe: Recipe, position: int, width: int, step: int, ids: Tensor) -> list[int]:
    drop = recipe.drop(position)
    assert drop is not None
    key = Key(recipe.seed, stream_of(f"drop{position}"), step=step, samples=ids)
    return mask(drop, (1, width), key)[0].int().tolist()
