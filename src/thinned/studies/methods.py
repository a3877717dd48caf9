"""The methods that a study compares, each with the strengths that validation chooses among.

A *method* is one way to regularize, such as dropout or L2. A *candidate* is a method at one
strength, such as dropout at p = 0.3. All methods of a study have equally many candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..algebra.drop import Drop
from ..presets import dropout, gaussian_dropout
from ..train import Augment, Custom, Recipe


@dataclass(frozen=True)
class Candidate:
    """A method at one strength.

    Args:
        label: The strength as text, such as "p = 0.3".
        recipe: The recipe of its networks.
    """

    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Context:
    """What the candidates of a fold are built from.

    Args:
        base: The recipe without a regularizer.
        image: (channels, height, width) of images; None for tables.
        count: The number of candidates of each method.
    """

    base: Recipe
    image: tuple[int, int, int] | None
    count: int

    @property
    def layers(self) -> int:
        """The number of hidden layers; 2 for a user's network, where the last spec is repeated."""
        return 2 if isinstance(self.base.network, Custom) else len(self.base.network.hidden)

    def hidden(self, p: float, make: Callable[[float], Drop] = dropout) -> tuple[Drop | None, ...]:
        """The specs for one rate after every hidden layer and none on the input."""
        return (None, *(make(p),) * self.layers)


@dataclass(frozen=True)
class StudyMethod:
    """One way to regularize.

    Args:
        title: The name in reports.
        family: "none", "dropout", "other" (regularizers other than dropout) or "combination" (of
            dropout and another regularizer).
        candidates: A function from the context of a fold to ``context.count`` candidates.
        builtin_only: Whether it changes the layers of the network, which is possible for built-in
            networks only.
    """

    title: str
    family: str
    candidates: Callable[[Context], list[Candidate]] = field(repr=False)
    builtin_only: bool = False


def pick(values: Sequence[Any], count: int) -> list[Any]:
    """``count`` of ``values``, evenly spread from the first to the last."""
    if count >= len(values):
        return list(values)
    if count == 1:
        return [values[len(values) // 2]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


HIDDEN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
INPUT = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
L1 = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
L2 = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
NORM = (0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
LR = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # times the learning rate of the study
PATIENCE = (0.06, 0.1, 0.15, 0.2, 0.3, 0.4)  # fractions of all epochs
# times 6 % of the side of the image and 6 degrees; for tables, times noise of 0.15
AUGMENT = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
NORM_THEN_DROP, DROP_THEN_NORM = (
    ("linear", "norm", "act", "drop"),
    ("linear", "act", "drop", "norm"),
)


def _number(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 1e-2 else f"{value:g}"


def _over(
    values: Sequence[Any], make: Callable[[Context, Any], tuple[str, Recipe]]
) -> Callable[[Context], list[Candidate]]:
    """Candidates for strengths from ``values``; ``make`` returns a label and a recipe."""
    return lambda c: [Candidate(*make(c, v)) for v in pick(values, c.count)]


def _rate(make: Callable[[float], Drop] = dropout) -> Callable[[Context], list[Candidate]]:
    """Candidates for one rate after every hidden layer."""
    return _over(HIDDEN, lambda c, p: (f"p = {p:g}", c.base.at(drops=c.hidden(p, make))))


def _lr(c: Context, factor: float) -> tuple[str, Recipe]:
    lr = c.base.optimizer.lr * factor
    return f"lr × {factor:g}", c.base.at(optimizer=replace(c.base.optimizer, lr=lr))


def _ordered(c: Context, order: tuple[str, ...], recipe: Recipe) -> Recipe:
    assert not isinstance(c.base.network, Custom)
    return recipe.at(network=replace(c.base.network, order=order))


def _profiles(c: Context, profile: tuple[float, float, float]) -> tuple[str, Recipe]:
    """Rates (input, first hidden, last hidden); those of the layers between are interpolated."""
    at_input, first, last = profile
    steps = max(c.layers - 1, 1)
    rates = [round(first + (last - first) * i / steps, 3) for i in range(c.layers)]
    label = f"input {at_input:g}, hidden " + " ".join(f"{r:g}" for r in rates)
    return label, c.base.at(drops=(dropout(at_input), *(dropout(r) for r in rates)))


def _augmented(c: Context, strength: float, recipe: Recipe) -> tuple[str, Recipe]:
    if c.image is None:
        noise = round(0.15 * strength, 3)
        return f"noise {noise:g}", recipe.at(augment=Augment(noise=noise))
    shift, rotate = round(0.06 * strength * min(c.image[1:]), 2), 6 * strength
    return f"shift {shift:g} px, rotate {rotate:g}°", recipe.at(
        augment=Augment(shift=shift, rotate=rotate)
    )


def _dropout_augmented(c: Context, strengths: tuple[float, float]) -> tuple[str, Recipe]:
    """Strengths (dropout rate, augmentation)."""
    p, augmentation = strengths
    label, recipe = _augmented(c, augmentation, c.base.at(drops=c.hidden(p)))
    return f"p = {p:g}, {label}", recipe


def _patience(c: Context, share: float) -> int:
    return max(2, round(share * c.base.epochs))


# Combinations have two strengths: six settings that cross weak and strong values of both.
_WITH_NORM = ((0.2, 3.0), (0.3, 2.0), (0.4, 1.5), (0.5, 2.0), (0.5, 3.0), (0.3, 1.0))
_WITH_L2 = ((0.1, 1e-4), (0.2, 3e-4), (0.3, 3e-5), (0.3, 1e-4), (0.4, 1e-4), (0.5, 3e-5))
_WITH_AUGMENT = ((0.1, 0.5), (0.2, 1.0), (0.2, 1.5), (0.3, 0.5), (0.3, 1.0), (0.5, 0.5))
_PROFILES = (
    (0.0, 0.2, 0.5),
    (0.0, 0.5, 0.2),
    (0.1, 0.3, 0.5),
    (0.1, 0.5, 0.3),
    (0.2, 0.5, 0.5),
    (0.2, 0.2, 0.2),
)

STUDY_METHODS: dict[str, StudyMethod] = {
    "none": StudyMethod("no regularizer", "none", _over(LR, _lr)),
    "dropout": StudyMethod("dropout", "dropout", _rate()),
    "classic_dropout": StudyMethod(
        "dropout, classic scaling", "dropout", _rate(lambda p: dropout(p, "classic"))
    ),
    "gaussian_dropout": StudyMethod("Gaussian dropout", "dropout", _rate(gaussian_dropout)),
    "input_dropout": StudyMethod(
        "dropout on the input",
        "dropout",
        _over(INPUT, lambda c, p: (f"p = {p:g}", c.base.at(drops=(dropout(p),)))),
    ),
    "layerwise_dropout": StudyMethod(
        "dropout, a rate for each layer", "dropout", _over(_PROFILES, _profiles)
    ),
    "drop_connect": StudyMethod(
        "DropConnect",
        "dropout",
        _over(HIDDEN, lambda c, p: (f"p = {p:g}", c.base.at(drop_connect=p))),
        builtin_only=True,
    ),
    "l1": StudyMethod(
        "L1", "other", _over(L1, lambda c, v: (f"λ = {_number(v)}", c.base.at(l1=v)))
    ),
    "l2": StudyMethod(
        "L2", "other", _over(L2, lambda c, v: (f"λ = {_number(v)}", c.base.at(l2=v)))
    ),
    "elastic_net": StudyMethod(
        "elastic net",
        "other",
        _over(
            tuple(zip(L1, L2, strict=True)),
            lambda c, v: (
                f"λ1 = {_number(v[0])}, λ2 = {_number(v[1])}",
                c.base.at(l1=v[0], l2=v[1]),
            ),
        ),
    ),
    "max_norm": StudyMethod(
        "max-norm", "other", _over(NORM, lambda c, v: (f"c = {v:g}", c.base.at(max_norm=v)))
    ),
    "weight_decay": StudyMethod(
        "decoupled weight decay",
        "other",
        _over(
            (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
            lambda c, v: (
                f"λ = {v:g}",
                c.base.at(optimizer=replace(c.base.optimizer, weight_decay=v)),
            ),
        ),
    ),
    "label_smoothing": StudyMethod(
        "label smoothing",
        "other",
        _over(
            (0.02, 0.05, 0.08, 0.1, 0.15, 0.2),
            lambda c, v: (f"ε = {v:g}", c.base.at(label_smoothing=v)),
        ),
    ),
    "batch_norm": StudyMethod(
        "batch normalization",
        "other",
        lambda c: [
            replace(x, recipe=_ordered(c, NORM_THEN_DROP, x.recipe)) for x in _over(LR, _lr)(c)
        ],
        builtin_only=True,
    ),
    "early_stopping": StudyMethod(
        "early stopping",
        "other",
        _over(
            PATIENCE,
            lambda c, v: (f"patience {_patience(c, v)}", c.base.at(patience=_patience(c, v))),
        ),
    ),
    "augmentation": StudyMethod(
        "data augmentation", "other", _over(AUGMENT, lambda c, v: _augmented(c, v, c.base))
    ),
    "batch_norm_dropout": StudyMethod(
        "batch normalization, then dropout",
        "combination",
        lambda c: [replace(x, recipe=_ordered(c, NORM_THEN_DROP, x.recipe)) for x in _rate()(c)],
        builtin_only=True,
    ),
    "dropout_batch_norm": StudyMethod(
        "dropout, then batch normalization",
        "combination",
        lambda c: [replace(x, recipe=_ordered(c, DROP_THEN_NORM, x.recipe)) for x in _rate()(c)],
        builtin_only=True,
    ),
    "dropout_max_norm": StudyMethod(
        "dropout + max-norm",
        "combination",
        _over(
            _WITH_NORM,
            lambda c, v: (
                f"p = {v[0]:g}, c = {v[1]:g}",
                c.base.at(drops=c.hidden(v[0]), max_norm=v[1]),
            ),
        ),
    ),
    "dropout_l2": StudyMethod(
        "dropout + L2",
        "combination",
        _over(
            _WITH_L2,
            lambda c, v: (
                f"p = {v[0]:g}, λ = {_number(v[1])}",
                c.base.at(drops=c.hidden(v[0]), l2=v[1]),
            ),
        ),
    ),
    "dropout_early_stopping": StudyMethod(
        "dropout + early stopping",
        "combination",
        _over(
            HIDDEN,
            lambda c, p: (
                f"p = {p:g}, patience {_patience(c, 0.2)}",
                c.base.at(drops=c.hidden(p), patience=_patience(c, 0.2)),
            ),
        ),
    ),
    "dropout_augmentation": StudyMethod(
        "dropout + augmentation",
        "combination",
        _over(
            _WITH_AUGMENT,
            _dropout_augmented,
        ),
    ),
}
EXTRA_METHODS = ("weight_decay", "label_smoothing")  # only in a full study, or by name
DEFAULT_METHODS = tuple(name for name in STUDY_METHODS if name not in EXTRA_METHODS)
