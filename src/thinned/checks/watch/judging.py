"""What a watched run says: verdicts from plain records. Every threshold stands here, with its
reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from ..finding import Finding, Findings

WatchRecord = dict[str, Any]

LEAST = 4  # samples before losses are judged: of fewer the standard error says little
GAP = 0.10  # of the loss: a smaller gap between training and validation is within what another split would give
EFFECT = 0.01  # of the loss: a dropout that changes it by less regularises hardly
STRONG = 1.5  # train-mode loss over eval-mode loss: beyond, a third of what is minimised is the noise itself
LEARNT = 0.5  # of the first loss: what fell below is learning, whatever the noise adds to a loss that has become small
RATE = 0.6  # Srivastava et al. 2014, section 7.3: keeping 40 to 80 % was flat, keeping less underfitted
MOVING = 0.05  # of the loss: falling faster from one half of the samples to the next, training is not done
RISEN = 1.05  # validation loss over its lowest: beyond, it has turned
SHIFT = (
    0.9,
    1.1,
)  # Var_eval / Var_train at a batch normalisation: within, the outputs change by less than 5 %
DEAD = 0.10  # of a layer's units
VANISHED = 1e-6  # root mean square of a layer's gradient over that of the strongest layer: below 32-bit resolution of a sum
EXPLODED = 100.0  # times the median of the samples before
OFF_RATE = 0.02  # between the measured rate and the nominal one, beside 4 standard errors
REPEATS = 3  # equal masks on end, each of them beyond chance


@dataclass(frozen=True)
class Verdict:
    """One sentence on a run. ``name``: "overfitting", "dropout-too-strong", ...; ``advice``: what
    to do, "" where nothing.
    """

    name: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.advice}".strip()


@dataclass(frozen=True)
class Losses:
    """Means of the last samples. ``train``, ``eval``: of the same batches in both modes; ``valid``:
    None without validation.

    ``alone``: with dropout off and batch normalisation as in training.
    """

    train: float
    eval: float
    alone: float
    error: float  # standard error of eval
    noise: float  # standard error of train - alone
    valid: float | None
    moving: bool  # is eval still falling?
    scale: float


def judge(history: Sequence[WatchRecord], window: int) -> tuple[tuple[Verdict, ...], Findings]:
    """What the records say, from the last ``window`` samples: verdicts on the fit, and findings by
    rule.
    """
    samples = [r for r in history if r["what"] == "sample"]
    if not samples:
        return (Verdict("nothing-seen", "Nothing was measured yet."),), Findings()
    last = samples[-window:]
    found = [
        *_rates(samples),
        *_quiet(samples[-1]),
        *_evaluation(samples[-1]),
        *_repeated(samples[-1]),
        *_shifted(last),
    ]
    verdicts = [*_fit(history, last), *_gradients(samples), *_dead(samples, window)]
    losses = losses_of(history, window)
    if any(v.name == "gap-is-dropout" for v in verdicts) and losses is not None:
        assert losses.valid is not None
        message = (
            f"training loss {losses.train:.4g} against validation loss {losses.valid:.4g}; without dropout the training "
            f"batches have {losses.eval:.4g}"
        )
        evidence = (("train", losses.train), ("eval", losses.eval), ("validation", losses.valid))
        found.append(Finding("L16", message, evidence=evidence))
    return tuple(verdicts), Findings(found)


def losses_of(history: Sequence[WatchRecord], window: int) -> Losses | None:
    """The losses of the last ``window`` samples; None before there are :data:`LEAST` of them."""
    known = [
        r for r in history if r["what"] == "sample" and _finite(r["train"]) and _finite(r["eval"])
    ][-window:]
    if len(known) < LEAST:
        return None
    validations = [r["loss"] for r in history if r["what"] == "validation"]
    train, evaluation = [r["train"] for r in known], [r["eval"] for r in known]
    root = math.sqrt(len(known))
    t, e = fmean(train), fmean(evaluation)
    valid = validations[-1] if validations and _finite(validations[-1]) else None
    scale = max(abs(t), abs(e), abs(valid or 0.0), 1e-12)
    half = len(known) // 2
    fallen = fmean(evaluation[:half]) - fmean(evaluation[-half:])
    noise = stdev([r["train"] - r["alone"] for r in known]) / root
    alone = fmean(r["alone"] for r in known)
    error = stdev(evaluation) / root
    return Losses(t, e, alone, error, noise, valid, fallen > max(MOVING * scale, 2 * error), scale)


def _finite(x: float | None) -> bool:
    return x is not None and math.isfinite(x)


def _fit(history: Sequence[WatchRecord], last: Sequence[WatchRecord]) -> list[Verdict]:
    if any(
        r[k] is not None and not math.isfinite(r[k])
        for r in last
        for k in ("loss", "train", "eval")
    ):
        return [
            Verdict(
                "not-finite",
                "The loss is not finite.",
                "Lower the learning rate, or clip gradients.",
            )
        ]
    x = losses_of(history, len(last))
    if x is None:
        count = sum(r["what"] == "sample" for r in history)
        why = (
            "no loss is known: pass loss="
            if last[-1]["train"] is None
            else f"{count} of at least {LEAST} samples were taken"
        )
        return [Verdict("too-early", f"Too early to judge the fit: {why}.")]
    said = [*_dropout_strength(x, last, history), *([] if x.valid is None else _gap(x, history))]
    if not said:
        text = f"No sign of trouble: {x.train:.4g} with dropout, {x.eval:.4g} without"
        rest = (
            ", no validation loss known." if x.valid is None else f", {x.valid:.4g} on validation."
        )
        said = [Verdict("fine", text + rest)]
    return said


def _acting(last: Sequence[WatchRecord]) -> list[WatchRecord]:
    return [r for r in last[-1]["rates"].values() if r["in_train"]]


def _dropout_strength(
    x: Losses, last: Sequence[WatchRecord], history: Sequence[WatchRecord]
) -> list[Verdict]:
    acting = _acting(last)
    if not acting:
        return []
    effect = x.train - x.alone
    gap = 0.0 if x.valid is None else x.valid - x.eval
    rates = [r["measured"] if r["measured"] is not None else r["nominal"] or 0.0 for r in acting]
    no_gap = gap <= max(GAP * x.scale, 3 * x.error)
    heavy = x.train > STRONG * x.alone > 0 or max(rates) > RATE
    if heavy and no_gap and not x.moving and not _learnt(x, history):
        held = (
            "no validation loss is known to say what it buys"
            if x.valid is None
            else "validation shows no gap to close"
        )
        text = f"Dropout is too strong: the loss is {x.train:.4g} with it and {x.alone:.4g} without, and {held}."
        return [
            Verdict(
                "dropout-too-strong",
                text,
                f"Halve the rates (the highest is {max(rates):.2g}), or widen the layers.",
            )
        ]
    if abs(effect) < EFFECT * x.scale and abs(effect) < max(2 * x.noise, EFFECT * x.scale):
        text = f"Dropout has hardly an effect: {x.train:.4g} with it, {x.alone:.4g} without."
        return [
            Verdict(
                "no-effect",
                text,
                "Raise the rates if validation lags behind training; else it is not needed.",
            )
        ]
    return []


def _learnt(x: Losses, history: Sequence[WatchRecord]) -> bool:
    first = next(r["eval"] for r in history if r["what"] == "sample" and _finite(r["eval"]))
    return bool(0 <= x.eval < LEARNT * first)


def _gap(x: Losses, history: Sequence[WatchRecord]) -> list[Verdict]:
    assert x.valid is not None
    validations = [r for r in history if r["what"] == "validation" and _finite(r["loss"])]
    best = min(validations, key=lambda r: r["loss"])
    within = max(GAP * x.scale, 3 * x.error)
    if x.valid - x.eval > within:
        text = f"Overfitting: without dropout the loss is {x.eval:.4g} on training batches and {x.valid:.4g} on validation."
        turned = best["loss"] > 0 and x.valid > RISEN * best["loss"]
        stop = (
            f"Validation was best at step {best['step']} ({best['loss']:.4g}): stop there"
            if turned
            else "Raise the rates"
        )
        return [
            Verdict(
                "overfitting",
                text,
                f"{stop}, or add dropout (thinned.insert), data or weight decay.",
            )
        ]
    by_dropout = x.train - x.alone > (x.train - x.valid) / 2  # and not by batch normalisation's
    if x.train - x.valid > within / 2 and x.valid >= x.eval - within and by_dropout:
        text = f"Training loss {x.train:.4g} above validation loss {x.valid:.4g} is dropout's doing: without it, {x.eval:.4g}."
        return [
            Verdict("gap-is-dropout", text, "Nothing is wrong; compare both in evaluation mode.")
        ]
    if x.valid < x.eval - within:
        text = f"Validation is easier than training even without dropout: {x.valid:.4g} against {x.eval:.4g}."
        return [
            Verdict(
                "validation-easier",
                text,
                "Look for augmentation of training data alone, or for leaked rows.",
            )
        ]
    return []


def _gradients(samples: Sequence[WatchRecord]) -> list[Verdict]:
    now = samples[-1]["gradients"]
    if not now:
        return []
    bad = [name for name, g in now.items() if not math.isfinite(g)]
    if bad:
        text = f"The gradient of {_names(bad)} is not finite."
        return [Verdict("gradient-not-finite", text, "Lower the learning rate, or clip gradients.")]
    said = []
    total, before = _total(now), [_total(r["gradients"]) for r in samples[:-1] if r["gradients"]]
    if len(before) >= LEAST and total > EXPLODED * median(before) > 0:
        text = f"Gradients explode: {total / median(before):.3g} times the median so far."
        said.append(Verdict("exploding", text, "Clip gradients, or lower the learning rate."))
    recent = [r["gradients"] for r in samples[-3:]]
    small = [
        n
        for n in now
        if len(recent) == 3
        and all(g.get(n, 1.0) <= VANISHED * max(g.values(), default=0.0) for g in recent)
    ]
    if small and len(small) < len(now):
        text = (
            f"The gradient of {_names(small)} vanishes: below a millionth of the strongest layer's."
        )
        said.append(
            Verdict(
                "vanishing",
                text,
                "Look for dead units, saturated activations or a detached branch in front of it.",
            )
        )
    return said


def _total(gradients: dict[str, float]) -> float:
    return max((g for g in gradients.values() if math.isfinite(g)), default=0.0)


def _dead(samples: Sequence[WatchRecord], window: int) -> list[Verdict]:
    bad = {name: (dead, of) for name, (dead, of) in samples[-1]["dead"].items() if dead > DEAD * of}
    if not bad:
        return []
    name, (dead, of) = max(bad.items(), key=lambda item: item[1][0] / item[1][1])
    text = f"Dead units: {dead} of {of} behind {name or 'the model'} were 0 for all examples of the last {window} samples"
    others = f", and more in {len(bad) - 1} other layers." if len(bad) > 1 else "."
    return [
        Verdict(
            "dead-units",
            text + others,
            "Lower the learning rate, or use a leaky activation; the layer may be narrower.",
        )
    ]


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rates(samples: Sequence[WatchRecord]) -> list[Finding]:
    found = []
    for name, now in samples[-1]["rates"].items():
        same = [
            r["rates"][name]
            for r in samples
            if name in r["rates"] and r["rates"][name]["nominal"] == now["nominal"]
        ]
        seen = [r["measured"] for r in same if r["in_train"] and r["measured"] is not None]
        if now["nominal"] is None or len(seen) < 2 * LEAST:
            continue
        mean, error = fmean(seen), stdev(seen) / math.sqrt(len(seen))
        if abs(mean - now["nominal"]) > OFF_RATE + 4 * error:
            message = (
                f"{mean:.1%} fell in {len(seen)} samples where {now['nominal']:.1%} were asked for"
            )
            found.append(
                Finding(
                    "L20", message, name, evidence=(("nominal", now["nominal"]), ("measured", mean))
                )
            )
    return found


def _quiet(last: WatchRecord) -> list[Finding]:
    if not last["training"]:
        return [Finding("L21", "the model is in evaluation while it trains")]
    message = "has a rate, but is in evaluation or switched off while the model trains"
    return [Finding("L21", message, name or "(the model)") for name in last["quiet"]]


def _evaluation(last: WatchRecord) -> list[Finding]:
    codes = {"dropout": "L1", "attention": "L2"}
    return [
        Finding(codes[r["kind"]], "draws in evaluation too", name)
        for name, r in last["rates"].items()
        if r["in_eval"] and r["kind"] in codes
    ]


def _repeated(last: WatchRecord) -> list[Finding]:
    found = []
    for name, one in last["masks"].items():
        if one.get("repeats", 0) >= REPEATS:
            message = f"the last {one['repeats'] + 1} samples had one mask"
        elif one.get("always") or one.get("never"):
            message = f"of {one['units']} units {one['always']} always and {one['never']} never fell in {one['passes']} samples"
        else:
            continue
        found.append(Finding("L18", message, name))
    return found


def _shifted(last: Sequence[WatchRecord]) -> list[Finding]:
    found = []
    for name, now in last[-1]["shift"].items():
        seen = [r["shift"][name]["ratio"] for r in last if name in r["shift"]]
        ratios = [r for r in seen if r is not None]
        if not now["behind"] or len(ratios) < LEAST:
            continue
        ratio = median(ratios)
        if not SHIFT[0] <= ratio <= SHIFT[1]:
            message = (
                f"evaluation has {ratio:.2f} times the variance that training has at its input"
            )
            found.append(Finding("L5", message, name, evidence=(("ratio", ratio),)))
    return found
