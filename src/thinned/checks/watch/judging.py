"""Verdicts and findings of a watched run, from its records. All thresholds and their reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from ..finding import Finding, Findings

WatchRecord = dict[str, Any]

# One line each: docs/watch.md has them as a table.
LEAST = 4  # samples before losses are judged; of fewer the standard error says little
GAP = 0.10  # of the loss; another split of the data gives gaps between train and validation below
EFFECT = 0.01  # of the loss; a dropout that changes it by less hardly regularizes
STRONG = 1.5  # loss with dropout over without; above, a third of what is minimized is the noise
LEARNED = 0.5  # of the first loss; a loss below it shows learning, even if noise is a large share
RATE = 0.6  # Srivastava et al. 2014, section 7.3: keeping 40 to 80 % is flat, less underfits
MOVING = 0.05  # of the loss; it decreases by more from half to half of the samples while it learns
RISEN = 1.05  # validation loss over its lowest; above, it has turned
SHIFT = (0.9, 1.1)  # Var_eval / Var_train at batch normalization; within, outputs change < 5 %
DEAD = 0.10  # of the units of a layer
VANISHED = 1e-6  # RMS of a gradient over the strongest one; below the 32-bit resolution of a sum
EXPLODED = 100.0  # times the median of the samples before
OFF_RATE = 0.02  # between the measured and the nominal rate, in addition to 4 standard errors
EPOCH = 100  # steps, where no validation ended an epoch; schedules are advanced by then
REPEATS = 3  # equal masks in a row, each of them beyond chance


@dataclass(frozen=True)
class Verdict:
    """One sentence on a run, and what to do.

    Args:
        name: "overfitting", "dropout-too-strong", ...; the page on watching lists all.
        text: The sentence.
        advice: What to do; "" where nothing has to be done.
    """

    name: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.advice}".strip()


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Mean losses of the last samples before the last validation, or of the last samples.

    While the loss decreases they are those of the last :data:`LEAST` samples, because means over
    more would compare earlier networks with the one that was validated.

    ``train``, ``eval``: on the same batches in both modes. ``without``: with dropout off and batch
    normalization as in training. ``valid``: None without validation in evaluation mode. ``error``:
    the standard error of ``eval``; ``noise``: that of ``train - without``. ``decreasing``: whether
    ``eval`` still decreases. ``scale``: the largest of the losses. ``samples``: how many there are;
    ``step``: that of the last one.
    """

    train: float
    eval: float
    without: float
    error: float
    noise: float
    valid: float | None
    decreasing: bool
    scale: float
    samples: int
    step: int

    def __str__(self) -> str:
        """The losses that verdicts name, and where they are from."""
        parts = [f"loss {self.train:.4g} with dropout", f"{self.without:.4g} without"]
        if f"{self.eval:.4g}" != f"{self.without:.4g}":
            parts.append(f"{self.eval:.4g} in evaluation mode")
        return f"{', '.join(parts)} (mean of {self.samples} samples, to step {self.step:,})"


def judge(history: Sequence[WatchRecord], window: int) -> tuple[tuple[Verdict, ...], Findings]:
    """Verdicts on the fit, and findings by rule, from the last ``window`` samples."""
    samples = [r for r in history if r["what"] == "sample"]
    if not samples:
        return (Verdict("nothing-seen", "Nothing was measured yet."),), Findings()
    last = samples[-window:]
    findings = [
        *_wrong_rates(samples),
        *_inactive(samples[-1]),
        *_validated_in_training(history),
        *_unmoved(history, samples[-1]),
        *_draws_in_evaluation(samples[-1]),
        *_repeated_masks(samples[-1]),
        *_variance_shifts(last),
    ]
    verdicts = [*_fit(history, last), *_gradients(samples), *_dead_units(samples, window)]
    losses = losses_of(history, window)
    if any(v.name == "gap-is-dropout" for v in verdicts) and losses is not None:
        assert losses.valid is not None
        message = (
            f"the training loss is {losses.train:.4g} and the validation loss {losses.valid:.4g}, "
            f"but without dropout the training batches have {losses.without:.4g}"
        )
        evidence = (
            ("train", losses.train),
            ("without", losses.without),
            ("eval", losses.eval),
            ("validation", losses.valid),
        )
        findings.append(Finding("L16", message, evidence=evidence))
    return tuple(verdicts), Findings(findings)


def losses_of(history: Sequence[WatchRecord], window: int) -> Losses | None:
    """The losses of the last ``window`` samples; None before there are :data:`LEAST` of them."""
    known = [
        r for r in history if r["what"] == "sample" and _finite(r["train"]) and _finite(r["eval"])
    ]
    validations = validations_of(history)
    valid = validations[-1]["loss"] if validations else None
    before = [r for r in known if validations and r["step"] <= validations[-1]["step"]]
    known = (before if len(before) >= LEAST else known)[-window:]
    if len(known) < LEAST:
        return None
    evaluation = [r["eval"] for r in known]
    half = len(known) // 2
    decrease = fmean(evaluation[:half]) - fmean(evaluation[-half:])
    size = max(abs(fmean(evaluation)), abs(fmean(r["train"] for r in known)), 1e-12)
    error = stdev(evaluation) / math.sqrt(len(known))
    decreasing = decrease > max(MOVING * size, 2 * error)
    if decreasing:
        known = known[-LEAST:]
        evaluation = [r["eval"] for r in known]
        error = stdev(evaluation) / math.sqrt(len(known))
    train, mean = fmean(r["train"] for r in known), fmean(evaluation)
    scale = max(abs(train), abs(mean), abs(valid or 0.0), 1e-12)
    return Losses(
        train=train,
        eval=mean,
        without=fmean(r["without"] for r in known),
        error=error,
        noise=stdev([r["train"] - r["without"] for r in known]) / math.sqrt(len(known)),
        valid=valid,
        decreasing=decreasing,
        scale=scale,
        samples=len(known),
        step=known[-1]["step"],
    )


def validations_of(history: Sequence[WatchRecord]) -> list[WatchRecord]:
    """The validations that can be compared: finite, and in evaluation mode."""
    return [
        r
        for r in history
        if r["what"] == "validation" and _finite(r["loss"]) and not r.get("training")
    ]


def _finite(x: float | None) -> bool:
    return x is not None and math.isfinite(x)


def _fit(history: Sequence[WatchRecord], last: Sequence[WatchRecord]) -> list[Verdict]:
    values = [r[k] for r in last for k in ("loss", "train", "eval")]
    if any(value is not None and not math.isfinite(value) for value in values):
        advice = "Lower the learning rate, or clip gradients."
        return [Verdict("not-finite", "The loss is not finite.", advice)]
    losses = losses_of(history, len(last))
    if losses is None:
        count = sum(r["what"] == "sample" for r in history)
        why = f"{count} of at least {LEAST} samples were taken"
        if last[-1]["train"] is None:
            why = "no loss is known (pass loss=)"
        return [Verdict("too-early", f"It is too early to judge the fit: {why}.")]
    drawing = [name for name, r in last[-1]["rates"].items() if r["in_eval"]]
    if drawing:
        text = (
            f"Losses with and without dropout cannot be compared: {_names(drawing)} draws in "
            "evaluation too."
        )
        return [Verdict("not-comparable", text, "Correct that first (L1), or watch another loss.")]
    verdicts = _dropout_strength(losses, last, history)
    if losses.valid is not None:
        verdicts += _gap(losses, losses.valid, history)
    if verdicts:
        return verdicts
    end = "" if losses.valid is None else f", and {losses.valid:.4g} on validation data"
    text = (
        f"No problem was found: the loss is {losses.train:.4g} with dropout and "
        f"{losses.without:.4g} without{end}."
    )
    return [Verdict("fine", text)]


def _dropout_strength(
    losses: Losses, last: Sequence[WatchRecord], history: Sequence[WatchRecord]
) -> list[Verdict]:
    active = [r for r in last[-1]["rates"].values() if r["in_train"]]
    if not active:
        return []
    effect = losses.train - losses.without
    gap = 0.0 if losses.valid is None else losses.valid - losses.eval
    rates = [r["measured"] if r["measured"] is not None else r["nominal"] or 0.0 for r in active]
    no_gap = gap <= max(GAP * losses.scale, 3 * losses.error)
    strong = losses.train > STRONG * losses.without > 0 or max(rates) > RATE
    if strong and no_gap and not losses.decreasing and not _learned(losses, history):
        reason = (
            "no validation loss is known that would show a benefit"
            if losses.valid is None
            else "validation shows no gap to close"
        )
        text = (
            f"Dropout is too strong: the loss is {losses.train:.4g} with it and "
            f"{losses.without:.4g} without, and {reason}."
        )
        advice = f"Halve the rates (the highest is {max(rates):.2g}), or widen the layers."
        return [Verdict("dropout-too-strong", text, advice)]
    if abs(effect) < EFFECT * losses.scale:
        text = (
            f"Dropout has hardly any effect: the loss is {losses.train:.4g} with it and "
            f"{losses.without:.4g} without."
        )
        advice = (
            "Raise the rates if the validation loss exceeds the training loss; otherwise dropout "
            "is not needed."
        )
        return [Verdict("no-effect", text, advice)]
    return []


def _learned(losses: Losses, history: Sequence[WatchRecord]) -> bool:
    first = next(r["eval"] for r in history if r["what"] == "sample" and _finite(r["eval"]))
    return bool(0 <= losses.eval < LEARNED * first)


def _gap(losses: Losses, valid: float, history: Sequence[WatchRecord]) -> list[Verdict]:
    train, evaluation = losses.train, losses.eval
    validations = validations_of(history)
    best = min(validations, key=lambda r: r["loss"])
    tolerance = max(GAP * losses.scale, 3 * losses.error)
    if valid - evaluation > tolerance:
        text = (
            f"The model overfits: in evaluation mode the loss is {evaluation:.4g} on training "
            f"batches and {valid:.4g} on validation data."
        )
        advice = "Raise the rates"
        if best["loss"] > 0 and valid > RISEN * best["loss"]:
            lowest = f"{best['loss']:.4g} at step {best['step']}"
            advice = f"The validation loss was lowest ({lowest}): stop there"
        advice += ", or add dropout (thinned.insert), data or weight decay."
        return [Verdict("overfitting", text, advice)]
    by_dropout = train - losses.without > (train - valid) / 2  # and not by batch normalization
    if train - valid > tolerance / 2 and valid >= evaluation - tolerance and by_dropout:
        text = (
            f"The training loss of {train:.4g} exceeds the validation loss of {valid:.4g} because "
            f"of dropout: without it, the training loss is {losses.without:.4g}."
        )
        advice = "Nothing is wrong; compare both in evaluation mode."
        return [Verdict("gap-is-dropout", text, advice)]
    if valid < evaluation - tolerance:
        text = (
            "The validation data is easier than the training data: in evaluation mode the loss is "
            f"{valid:.4g} on validation data and {evaluation:.4g} on training batches."
        )
        advice = "Check whether only the training data is augmented, or whether rows have leaked."
        return [Verdict("validation-easier", text, advice)]
    return []


def _gradients(samples: Sequence[WatchRecord]) -> list[Verdict]:
    now = samples[-1]["gradients"]
    if not now:
        return []
    not_finite = [name for name, g in now.items() if not math.isfinite(g)]
    if not_finite:
        text = f"The gradient of {_names(not_finite)} is not finite."
        return [Verdict("gradient-not-finite", text, "Lower the learning rate, or clip gradients.")]
    verdicts = []
    largest = _largest(now)
    before = [_largest(r["gradients"]) for r in samples[:-1] if r["gradients"]]
    if len(before) >= LEAST and largest > EXPLODED * median(before) > 0:
        text = (
            f"Gradients explode: they are {largest / median(before):.3g} times the median so far."
        )
        verdicts.append(Verdict("exploding", text, "Clip gradients, or lower the learning rate."))
    recent = [r["gradients"] for r in samples[-3:]]
    small = [
        n
        for n in now
        if len(recent) == 3
        and all(g.get(n, 1.0) <= VANISHED * max(g.values(), default=0.0) for g in recent)
    ]
    if small and len(small) < len(now):
        text = (
            f"The gradient of {_names(small)} vanishes: it is below a millionth of that of the "
            "layer with the largest gradient."
        )
        advice = "Look for dead units, saturated activations or a detached branch after it."
        verdicts.append(Verdict("vanishing", text, advice))
    return verdicts


def _largest(gradients: dict[str, float]) -> float:
    return max((g for g in gradients.values() if math.isfinite(g)), default=0.0)


def _dead_units(samples: Sequence[WatchRecord], window: int) -> list[Verdict]:
    dead_units = samples[-1]["dead"]
    many = {name: (dead, of) for name, (dead, of) in dead_units.items() if dead > DEAD * of}
    if not many:
        return []
    name, (dead, of) = max(many.items(), key=lambda item: item[1][0] / item[1][1])
    others = f", and many in {len(many) - 1} other layers" if len(many) > 1 else ""
    text = (
        f"{dead} of {of} units of {name or 'the model'} are dead: they were 0 for all examples of "
        f"the last {window} samples{others}."
    )
    advice = "Lower the learning rate, use a leaky activation, or use a narrower layer."
    return [Verdict("dead-units", text, advice)]


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _wrong_rates(samples: Sequence[WatchRecord]) -> list[Finding]:
    findings = []
    for name, now in samples[-1]["rates"].items():
        records = [r["rates"][name] for r in samples if name in r["rates"]]
        measured = [
            r["measured"]
            for r in records
            if r["nominal"] == now["nominal"] and r["in_train"] and r["measured"] is not None
        ]
        nominal = now["nominal"]
        if nominal is None or len(measured) < 2 * LEAST:
            continue
        mean, error = fmean(measured), stdev(measured) / math.sqrt(len(measured))
        if abs(mean - nominal) > OFF_RATE + 4 * error:
            message = (
                f"the measured rate is {mean:.1%} over {len(measured)} samples, the nominal rate "
                f"{nominal:.1%}"
            )
            evidence = (("nominal", nominal), ("measured", mean))
            findings.append(Finding("L20", message, name, evidence=evidence))
    return findings


def _inactive(last: WatchRecord) -> list[Finding]:
    if not last["training"]:
        return [Finding("L21", "the model is in evaluation mode while it trains")]
    message = "has a rate, but is in evaluation mode or switched off while the model trains"
    return [Finding("L21", message, name or "(the model)") for name in last["inactive"]]


def _validated_in_training(history: Sequence[WatchRecord]) -> list[Finding]:
    wrong = [r["step"] for r in history if r["what"] == "validation" and r.get("training")]
    if not wrong:
        return []
    message = (
        f"the model was in training mode when its validation loss was recorded, last at step "
        f"{wrong[-1]}; such losses are left out of the verdicts"
    )
    return [Finding("L25", message)]


def _unmoved(history: Sequence[WatchRecord], last: WatchRecord) -> list[Finding]:
    ends = [r["step"] for r in history if r["what"] == "validation" and r["step"]]
    if last["step"] <= min([*ends, EPOCH]):
        return []
    message = f"has a schedule that was never advanced in {last['step']} steps"
    return [Finding("L37", message, name or "(the model)") for name in last.get("unmoved", ())]


def _draws_in_evaluation(last: WatchRecord) -> list[Finding]:
    codes = {"dropout": "L1", "attention": "L2"}
    return [
        Finding(codes[r["kind"]], "draws in evaluation too", name)
        for name, r in last["rates"].items()
        if r["in_eval"] and r["kind"] in codes
    ]


def _repeated_masks(last: WatchRecord) -> list[Finding]:
    findings = []
    for name, masks in last["masks"].items():
        if masks.get("repeats", 0) >= REPEATS:
            message = f"the last {masks['repeats'] + 1} samples have the same mask"
        elif masks.get("always") or masks.get("never"):
            message = (
                f"over {masks['passes']} samples, {masks['always']} of {masks['units']} units are "
                f"always dropped and {masks['never']} never"
            )
        else:
            continue
        findings.append(Finding("L18", message, name))
    return findings


def _variance_shifts(last: Sequence[WatchRecord]) -> list[Finding]:
    findings = []
    for name, now in last[-1]["shift"].items():
        measured = [r["shift"][name]["ratio"] for r in last if name in r["shift"]]
        ratios = [ratio for ratio in measured if ratio is not None]
        if not now["draws_before"] or len(ratios) < LEAST:
            continue
        ratio = median(ratios)
        if not SHIFT[0] <= ratio <= SHIFT[1]:
            message = f"its input has {ratio:.2f} times the variance in evaluation as in training"
            findings.append(Finding("L5", message, name, evidence=(("ratio", ratio),)))
    return findings
