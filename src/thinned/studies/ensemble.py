"""The ensemble in dropout, shown: weight scaling, Monte Carlo, all subnetworks of a small net, and
thinning step by step.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..algebra import Key, stream_of
from ..functional import mask
from ..nn import sampling
from ..presets import dropout
from ..train import Mlp, Optimizer, Recipe, Rows, Split, Task, fit
from ..train.data import order
from ..train.fit import batches, losses
from ..train.trainee import Solo
from ..train.updates import Updates
from .design import PILOT_LR, Settings, context
from .records import Record

SAMPLES = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)
ROWS = 400  # test rows that Monte Carlo looks at
UNITS = 10  # of the net whose 2^10 subnetworks are all tried
FRAMES = 60


def shown(settings: Settings, split: Split) -> Record:
    """The records behind the report's section on ensembles."""
    return {
        "curve": curve(settings, split),
        "exact": exact(settings, split),
        "animation": animation(settings, split),
    }


def judge(log_or_value: Tensor, rows: Rows, task: Task) -> tuple[float, float]:
    """(loss, metric) of predictions: log-probabilities [n, classes], or standardised values [n]."""
    if task.kind == "regression":
        error = (log_or_value - rows.y).square().mean().item()
        return error, math.sqrt(error) * task.scale
    loss = F.nll_loss(log_or_value, rows.y).item()
    return loss, (log_or_value.argmax(-1) != rows.y).float().mean().item()


def means(out: Tensor, task: Task) -> dict[str, Tensor]:
    """The arithmetic and the renormalised geometric mean of outputs [k, n, outputs]; values have
    the first only.
    """
    if task.kind == "regression":
        return {"arithmetic": out[..., 0].mean(0)}
    log = F.log_softmax(out, -1)
    return {
        "arithmetic": torch.logsumexp(log, 0) - math.log(len(log)),
        "geometric": F.log_softmax(log.mean(0), -1),
    }


@torch.no_grad()
def curve(settings: Settings, split: Split) -> Record:
    """A net of the study's size at p = 0.5: one pass with scaled weights against averages of k
    thinned networks.
    """
    base = context(settings, split, 0, settings.lr or PILOT_LR[0])
    with torch.enable_grad():
        trained = fit(split, base.base.at(drops=base.hidden(0.5)))
    assert split.test is not None
    rows = split.test.take(slice(ROWS))
    net = trained.module()
    out = net(rows.x)
    scaled = out[..., 0] if split.task.kind == "regression" else F.log_softmax(out, -1)
    solo = Solo(trained.recipe, split, net)
    assert solo.key is not None
    draws = []
    with sampling(net):
        for step in range(max(SAMPLES)):
            solo.key.at(step, rows.ids)
            draws.append(net(rows.x))
    drawn = torch.stack(draws)  # [k, n, outputs]
    result: Record = {
        "p": 0.5,
        "rows": len(rows),
        "scaled": judge(scaled, rows, split.task),
        "samples": SAMPLES,
    }
    for k in SAMPLES:
        groups = [drawn[i : i + k] for i in range(0, len(drawn) - k + 1, k)][:20]
        for name in ("arithmetic", "geometric"):
            judged = [
                judge(m[name], rows, split.task)
                for g in groups
                if name in (m := means(g, split.task))
            ]
            if judged:
                result.setdefault(name, []).append(
                    [_spread([j[i] for j in judged]) for i in (0, 1)]
                )
    return result


def _spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))


@torch.no_grad()
def exact(settings: Settings, split: Split) -> Record:
    """A net of ten hidden units: every one of its 1,024 subnetworks, weighted by its probability."""
    base, p = context(settings, split, 0, settings.lr or PILOT_LR[0]).base, 0.5
    recipe = base.at(network=Mlp((UNITS,)), drops=(None, dropout(p)))
    with torch.enable_grad():
        net = fit(split, recipe).module()
    assert split.test is not None
    rows, task = split.test.take(slice(1000)), split.task
    hidden = F.relu(net.linear1(rows.x))  # type: ignore[operator]
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=UNITS)))  # [1024, units]
    out = torch.stack([net.linear2(hidden * m / (1 - p)) for m in masks])  # type: ignore[operator]  # [1024, n, outputs]
    log = out[..., 0] if task.kind == "regression" else F.log_softmax(out, -1)
    single = [judge(one, rows, task) for one in log]
    whole = net(rows.x)
    scaled = whole[..., 0] if task.kind == "regression" else F.log_softmax(whole, -1)
    averaged = means(out, task)  # p = 0.5: all masks are equally likely
    result: Record = {
        "units": UNITS,
        "p": p,
        "rows": len(rows),
        "subnetworks": [s[1] for s in single],
        "scaled": judge(scaled, rows, task),
        **{name: judge(value, rows, task) for name, value in averaged.items()},
    }
    nearest = averaged.get("geometric", averaged["arithmetic"])
    result["distance"] = (
        (nearest.double().exp() - scaled.double().exp()).abs().max().item()
        if task.kind == "classification"
        else (nearest - scaled).abs().max().item()
    )
    return result


def animation(settings: Settings, split: Split) -> Record:
    """A small net in training: at each step the units that fell for one example, and the losses.

    The masks are not recorded in training: they are computed afterwards from the key, as anyone
    can.
    """
    base = context(settings, split, 0, settings.lr or PILOT_LR[0]).base
    recipe = Recipe(
        Mlp((7, 5)), (None, dropout(0.4), dropout(0.4)), optimizer=Optimizer("adam", 0.01), epochs=base.epochs,
        batch_size=base.batch_size, seed=base.seed, shuffle=base.shuffle,
    )  # fmt: skip
    solo = Solo(recipe, split)
    cuts = batches(len(split.train), recipe.batch_size)
    updates = Updates(solo, FRAMES)
    frames: list[Record] = []
    for step in range(FRAMES):
        seen = split.train.take(order(len(split.train), recipe.shuffle, step // len(cuts)))
        batch = seen.take(slice(*cuts[step % len(cuts)]))
        updates.clear()
        loss = losses(solo.forward(batch.x, batch.ids, step), batch.y, split.task).sum()
        loss.backward()
        updates.step(step)
        with torch.no_grad():
            after = losses(solo.evaluate(split.val.x), split.val.y, split.task)[0].item()
        masks = [_mask(recipe, i, width, step, batch.ids[:1]) for i, width in ((1, 7), (2, 5))]
        frames.append({"loss": loss.item(), "val": after, "kept": masks, "row": int(batch.ids[0])})
    return {"widths": [7, 5], "outputs": split.task.outputs, "p": 0.4, "frames": frames}


def _mask(recipe: Recipe, place: int, width: int, step: int, ids: Tensor) -> list[int]:
    drop = recipe.drop(place)
    assert drop is not None
    key = Key(recipe.seed, stream_of(f"drop{place}"), step=step, samples=ids)
    return mask(drop, (1, width), key)[0].int().tolist()
