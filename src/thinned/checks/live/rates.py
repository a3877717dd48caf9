"""Rules on rates and scales: the nominal rate, the measured rate, and the scale of the output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...algebra.law import Bernoulli
from ...algebra.scale import Inverted
from ...surgery.model_access import seed_all
from ...surgery.tensor_values import is_dense, kind_of
from ..finding import Finding
from .check_run import CheckRun
from .draws import ALPHA, TORCH_DROPOUTS
from .evaluation import in_file, location
from .preserve import copy_tensors, float_tensors
from .record import (
    DrawRecord,
    differs_beyond_chance,
    looks_like_dropout,
    named_rate,
    names_keep_probability,
    replayable,
)

REPLAYS = 64


@dataclass(kw_only=True)
class Replay:
    """A layer that ran alone on one input, ``REPLAYS`` times in training and once in evaluation.

    ``rate``: the mean over ``values`` independent values of the share of dropped elements.
    ``slope``: of the outputs in training on that in evaluation, with its standard ``error``.
    """

    values: int
    rate: float
    slope: float
    error: float


def replays(run: CheckRun) -> dict[str, Replay]:
    """The replays of all layers that :func:`replayable` allows, on their first inputs."""
    found = {}
    modules = dict(run.model.named_modules())
    for name, (args, kwargs) in run.training_before[0].inputs.items():
        x = next(iter(float_tensors(args)), None)
        if x is not None and not is_dense(x):
            why = f"{name} gets a {kind_of(x)} tensor, of which no rate is measured"
            run.unchecked += [(code, why) for code in ("L4", "L17", "L20")]
            continue
        if replayable(modules[name]) and x is not None and x.dim() and bool((x != 0).any()):
            replay = _replay(modules[name], args, kwargs, x, run.seed)
            if replay is not None:
                found[name] = replay
    return found


@torch.no_grad()
def _replay(module: nn.Module, args: Any, kwargs: Any, x: Tensor, seed: int) -> Replay | None:
    modes = [(m, m.training) for m in module.modules()]
    outputs = []
    try:
        seed_all(seed + 40_000)
        for training in [False, *[True] * REPLAYS]:
            module.train(training)
            result = module(*copy_tensors(args), **copy_tensors(kwargs))
            y = next(iter(float_tensors(result)), None)
            if (
                y is None
                or not is_dense(y)
                or y.shape != x.shape
                or not bool(torch.isfinite(y).all())
            ):
                return None
            outputs.append(y.double())
    finally:
        for part, mode in modes:
            part.training = mode
    evaluation, training_outputs = outputs[0], outputs[1:]
    shares = _dropped_shares(x, training_outputs)
    size = float((evaluation * evaluation).sum())
    if size:
        slopes = torch.stack([(y * evaluation).sum() / size for y in training_outputs])
    else:
        slopes = torch.ones(REPLAYS)
    return Replay(
        values=len(shares),
        rate=float(shares.mean()),
        slope=float(slopes.mean()),
        error=float(slopes.std()) / math.sqrt(REPLAYS),
    )


def _dropped_shares(x: Tensor, outputs: list[Tensor]) -> Tensor:
    """Independent values of the share of dropped elements.

    One for each example and output; one for each output where all examples share their mask,
    because these are not independent of each other.
    """
    nonzero = x != 0
    dropped = [nonzero & (y == 0) for y in outputs]
    own_masks = any(bool((d[:1] != d).any()) for d in dropped) and len(x) > 1
    if not own_masks:
        return torch.cat([d.sum().reshape(1) / nonzero.sum() for d in dropped])

    def counts(mask: Tensor) -> Tensor:
        return mask.flatten(1).sum(1) if mask.dim() > 1 else mask.long()

    total = counts(nonzero)
    return torch.cat([(counts(d) / total)[total > 0] for d in dropped])


def rate_not_met(run: CheckRun) -> Iterator[Finding]:
    """L4, L20: the measured rate is not the nominal rate of the layer.

    Statistic: n * KL(measured || nominal) > log(2 / alpha) with alpha = 1e-6, Chernoff's bound,
    which is exact for n independent values in [0, 1] of any distribution. For functions of torch a
    value is one mask entry (an element of ``F.dropout``, a channel of ``F.dropout2d``), over all
    training passes. For a layer with its own code a value is the share of dropped elements of one
    example (of the whole batch where all examples share their mask) in one of 64 runs of the layer
    alone. It is L4 where the measured rate is consistent with 1 - rate and not with the rate, by
    the same bound, and L20 otherwise. Left out are layers that fill with a value other than 0, and
    layers of ours: the contract tests measure their rates.
    """
    counts: dict[Any, list[int]] = {}
    first: dict[Any, DrawRecord] = {}
    for record in run.training:
        for draw in record.draws:
            if draw.kind != "dropout" or not draw.entries:
                continue
            if draw.rate is not None and 0 < draw.rate < 1:
                first.setdefault(draw.place, draw)
                count = counts.setdefault((draw.place, draw.rate), [0, 0])
                count[0], count[1] = count[0] + draw.dropped, count[1] + draw.entries
    for (place, rate), (dropped, entries) in counts.items():
        measured = dropped / entries
        if differs_beyond_chance(measured, rate, entries, ALPHA):
            yield _wrong_rate(measured, rate, entries, "mask entries", location(first[place]))
    modules = dict(run.model.named_modules())
    for name, replay in replays(run).items():
        module = modules[name]
        of_torch = type(module).__module__.startswith("torch.nn")
        if isinstance(module, nn.modules.dropout._DropoutNd) and of_torch:
            continue
        nominal = named_rate(module)
        if nominal is None or not replay.rate > 0:
            continue
        if differs_beyond_chance(replay.rate, nominal[1], replay.values, ALPHA):
            yield _wrong_rate(replay.rate, nominal[1], replay.values, "values", {"site": name})


def _wrong_rate(measured: float, rate: float, n: int, what: str, where: dict[str, Any]) -> Finding:
    distinct = abs(1 - 2 * rate) > 0.1
    swapped = distinct and not differs_beyond_chance(measured, 1.0 - rate, n, ALPHA)
    text = f"the measured rate is {measured:.3g}, the nominal rate {rate:.3g}"
    if swapped:
        text += "; the share that should be kept is dropped"
    evidence = (
        ("nominal", rate),
        ("measured", measured),
        (f"independent {what}", float(n)),
        ("alpha", ALPHA),
    )
    return Finding("L4" if swapped else "L20", text, evidence=evidence, **where)


def keep_probability(run: CheckRun) -> Iterator[Finding]:
    """L4, names: the value of an attribute that is named as a probability of keeping is passed to
    a dropout function as its rate.

    Signal: the rate of the call equals an attribute of its module with "keep" or "retain" in its
    name, and is not 0.5. No statistics.
    """
    record = run.training_before[0]
    for calls in record.by_place().values():
        draw = calls[0]
        if draw.kind not in ("dropout", "attention") or draw.rate == 0.5:
            continue
        module = record.by_name.get(draw.name)
        for name, value in vars(module).items() if module is not None else ():
            if names_keep_probability(name) and isinstance(value, float) and value == draw.rate:
                text = f"{draw.function} gets {name} = {value:g} as its probability of dropping"
                yield Finding("L4", text, evidence=(("rate", value),), **location(draw))


def scaled_twice(run: CheckRun) -> Iterator[Finding]:
    """L17: dropout is scaled in training and again in evaluation.

    Signal one: only in evaluation, a module multiplies a tensor by 1 - p, and the tensor has the
    shape that the module drops at rate p by inverted dropout, of torch or of ours, which scales in
    training. Signal two: a layer that runs alone 64 times has a mean output of 1 / (1 - p) times
    its output in evaluation: the regression slope of the one on the other is within 5 standard
    errors (and a quarter of the distance) of 1 / (1 - p), and more than 10 from 1; or of 1 - p,
    where inverted dropout draws.
    """
    reported = set()
    in_training = {f[:2] for r in run.training_before for f in r.factors}
    draws = [d for d in run.training_before[0].draws if d.rate and _is_inverted(d)]
    for name, where, factor, shape in dict.fromkeys(run.evaluations[0].factors):
        for draw in draws:
            same_module = name in (draw.name, draw.name.rpartition(".")[0])
            rate = draw.rate or 0.0
            if (name, where) in in_training or not same_module or draw.shape != shape:
                continue
            if not rate < 1 or not math.isclose(factor, 1.0 - rate, rel_tol=1e-6):
                continue
            if name not in reported:
                reported.add(name)
                text = (
                    f"evaluation multiplies by {factor:g}, although {draw.function} has already "
                    "divided by it in training"
                )
                evidence = (("factor", factor), ("rate", rate))
                yield Finding("L17", text, site=name, evidence=evidence, **in_file(where))
    modules = dict(run.model.named_modules())
    for name, replay in replays(run).items():
        nominal = named_rate(modules[name])
        if nominal is None or name in reported or not looks_like_dropout(modules[name]):
            continue
        kept = 1.0 - nominal[1]
        inverted = any(d.name == name or d.name.startswith(f"{name}.") for d in draws)
        for ratio in (1.0 / kept, kept) if inverted else (1.0 / kept,):
            near = abs(replay.slope - ratio) < min(5 * replay.error, 0.25 * abs(ratio - 1))
            if near and abs(replay.slope - 1.0) > 10 * replay.error:
                text = f"its mean output in training is {replay.slope:.3g} times that in evaluation"
                evidence = (("ratio", replay.slope), ("rate", nominal[1]))
                yield Finding("L17", text, site=name, evidence=evidence)
                break


def _is_inverted(draw: DrawRecord) -> bool:
    """Whether the dropout scales by 1 / (1 - p) in training."""
    if draw.spec is not None:
        return isinstance(draw.spec.law, Bernoulli) and isinstance(draw.spec.scale, Inverted)
    return draw.kind == "dropout" and draw.function in TORCH_DROPOUTS
