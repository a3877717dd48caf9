"""The arms of a study: every way to regularize, with the strengths that validation chooses among."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..algebra.drop import Drop
from ..presets import dropout, gaussian_dropout
from ..train import Augment, Custom, Recipe


@dataclass(frozen=True)
class Candidate:
    """One setting that an arm may take. ``label``: its strength in words, such as ``"p = 0.3"``."""

    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Context:
    """What arms build on: the unregularized recipe and the data's kind."""

    base: Recipe
    image: tuple[int, int, int] | None
    count: int

    @property
    def layers(self) -> int:
        return 2 if isinstance(self.base.network, Custom) else len(self.base.network.hidden)

    def hidden(self, p: float, make: Callable[[float], Drop] = dropout) -> tuple[Drop | None, ...]:
        """One rate after every hidden layer."""
        return (None, *(make(p),) * self.layers)


@dataclass(frozen=True)
class Arm:
    """A way to regularize. ``family``: none, dropout, rival or pair. ``fits``: for which networks."""

    title: str
    family: str
    candidates: Callable[[Context], list[Candidate]] = field(repr=False)
    builtin_only: bool = False


def pick(values: Sequence[Any], count: int) -> list[Any]:
    """``count`` of ``values``, evenly spread, the first and the last among them."""
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
LR = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)  # times the study's
PATIENCE = (0.06, 0.1, 0.15, 0.2, 0.3, 0.4)  # shares of all epochs
AUGMENT = (
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
)  # times (6 % of the side, 6 degrees), or times 0.15 of noise
BN_DROP, DROP_BN = ("linear", "norm", "act", "drop"), ("linear", "act", "drop", "norm")


def _number(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 1e-2 else f"{value:g}"


def _over(
    values: Sequence[Any], make: Callable[[Context, Any], tuple[str, Recipe]]
) -> Callable[[Context], list[Candidate]]:
    return lambda c: [Candidate(*make(c, v)) for v in pick(values, c.count)]


def _rate(make: Callable[[float], Drop] = dropout) -> Callable[[Context], list[Candidate]]:
    return _over(HIDDEN, lambda c, p: (f"p = {p:g}", c.base.at(drops=c.hidden(p, make))))


def _lr(c: Context, factor: float) -> tuple[str, Recipe]:
    lr = c.base.optimizer.lr * factor
    return f"lr × {factor:g}", c.base.at(optimizer=replace(c.base.optimizer, lr=lr))


def _ordered(c: Context, order: tuple[str, ...], recipe: Recipe) -> Recipe:
    assert not isinstance(c.base.network, Custom)
    return recipe.at(network=replace(c.base.network, order=order))


def _profiles(c: Context, profile: tuple[float, float, float]) -> tuple[str, Recipe]:
    """(input, first hidden, last hidden); layers between are on the line."""
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


def _patience(c: Context, share: float) -> int:
    return max(2, round(share * c.base.epochs))


# Pairs have two strengths: six points that cross weak and strong of both.
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

ARMS: dict[str, Arm] = {
    "none": Arm("no regularizer", "none", _over(LR, _lr)),
    "dropout": Arm("dropout", "dropout", _rate()),
    "classic": Arm("dropout, classic scaling", "dropout", _rate(lambda p: dropout(p, "classic"))),
    "gaussian": Arm("Gaussian dropout", "dropout", _rate(gaussian_dropout)),
    "input": Arm(
        "dropout on the input",
        "dropout",
        _over(INPUT, lambda c, p: (f"p = {p:g}", c.base.at(drops=(dropout(p),)))),
    ),
    "layers": Arm("dropout, a rate for each layer", "dropout", _over(_PROFILES, _profiles)),
    "dropconnect": Arm(
        "DropConnect",
        "dropout",
        _over(HIDDEN, lambda c, p: (f"p = {p:g}", c.base.at(connect=p))),
        builtin_only=True,
    ),
    "l1": Arm("L1", "rival", _over(L1, lambda c, v: (f"λ = {_number(v)}", c.base.at(l1=v)))),
    "l2": Arm("L2", "rival", _over(L2, lambda c, v: (f"λ = {_number(v)}", c.base.at(l2=v)))),
    "elastic": Arm(
        "elastic net",
        "rival",
        _over(
            tuple(zip(L1, L2, strict=True)),
            lambda c, v: (
                f"λ1 = {_number(v[0])}, λ2 = {_number(v[1])}",
                c.base.at(l1=v[0], l2=v[1]),
            ),
        ),
    ),
    "max-norm": Arm(
        "max-norm", "rival", _over(NORM, lambda c, v: (f"c = {v:g}", c.base.at(max_norm=v)))
    ),
    "weight-decay": Arm(
        "decoupled weight decay",
        "rival",
        _over(
            (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
            lambda c, v: (
                f"λ = {v:g}",
                c.base.at(optimizer=replace(c.base.optimizer, weight_decay=v)),
            ),
        ),
    ),
    "label-smoothing": Arm(
        "label smoothing",
        "rival",
        _over(
            (0.02, 0.05, 0.08, 0.1, 0.15, 0.2),
            lambda c, v: (f"ε = {v:g}", c.base.at(label_smoothing=v)),
        ),
    ),
    "bn": Arm(
        "batch normalisation",
        "rival",
        lambda c: [replace(x, recipe=_ordered(c, BN_DROP, x.recipe)) for x in _over(LR, _lr)(c)],
        builtin_only=True,
    ),
    "early-stopping": Arm(
        "early stopping",
        "rival",
        _over(
            PATIENCE,
            lambda c, v: (f"patience {_patience(c, v)}", c.base.at(patience=_patience(c, v))),
        ),
    ),
    "augment": Arm(
        "data augmentation", "rival", _over(AUGMENT, lambda c, v: _augmented(c, v, c.base))
    ),
    "bn-dropout": Arm(
        "batch normalisation, then dropout",
        "pair",
        lambda c: [replace(x, recipe=_ordered(c, BN_DROP, x.recipe)) for x in _rate()(c)],
        builtin_only=True,
    ),
    "dropout-bn": Arm(
        "dropout, then batch normalisation",
        "pair",
        lambda c: [replace(x, recipe=_ordered(c, DROP_BN, x.recipe)) for x in _rate()(c)],
        builtin_only=True,
    ),
    "dropout+max-norm": Arm(
        "dropout + max-norm",
        "pair",
        _over(
            _WITH_NORM,
            lambda c, v: (
                f"p = {v[0]:g}, c = {v[1]:g}",
                c.base.at(drops=c.hidden(v[0]), max_norm=v[1]),
            ),
        ),
    ),
    "dropout+l2": Arm(
        "dropout + L2",
        "pair",
        _over(
            _WITH_L2,
            lambda c, v: (
                f"p = {v[0]:g}, λ = {_number(v[1])}",
                c.base.at(drops=c.hidden(v[0]), l2=v[1]),
            ),
        ),
    ),
    "dropout+early-stopping": Arm(
        "dropout + early stopping",
        "pair",
        _over(
            HIDDEN,
            lambda c, p: (
                f"p = {p:g}, patience {_patience(c, 0.2)}",
                c.base.at(drops=c.hidden(p), patience=_patience(c, 0.2)),
            ),
        ),
    ),
    "dropout+augment": Arm(
        "dropout + augmentation",
        "pair",
        _over(
            _WITH_AUGMENT,
            lambda c, v: (lambda made: (f"p = {v[0]:g}, {made[0]}", made[1]))(
                _augmented(c, v[1], c.base.at(drops=c.hidden(v[0])))
            ),
        ),
    ),
}
EXTRA_ARMS = ("weight-decay", "label-smoothing")  # in a full study, or by name
DEFAULT_ARMS = tuple(name for name in ARMS if name not in EXTRA_ARMS)
