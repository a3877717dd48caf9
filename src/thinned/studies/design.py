"""What a study trains: its settings, and the networks of all methods, curves and maps.

They are divided into chunks, which are trained and recorded one at a time, so that an interrupted
study can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .._errors import InputError, real, unknown, whole
from ..algebra.drop import Drop
from ..presets import dropout
from ..train import Cnn, Custom, Mlp, Optimizer, Recipe, Split
from ..train.fit import batch_ranges, group_recipes
from ..train.population import shared_structure
from .methods import DEFAULT_METHODS, STUDY_METHODS, Context

MODELS: dict[str, Mlp | Cnn] = {
    "mlp": Mlp((128, 128)),
    "wide": Mlp((512,)),
    "deep": Mlp((64, 64, 64, 64, 64)),
    "cnn": Cnn(),
}
EXPERIMENTS = ("methods", "rate", "layers", "batch", "optimizer", "size")
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PILOT_LR = (1e-3, 2e-3, 4e-3, 8e-3)
PILOT_LR_FEW = (1e-3, 4e-3)  # for networks that are trained one by one


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that determine what a study trains.

    Args:
        model: A built-in network by name, or "module:function".
        methods: The names of the methods to compare. Empty: those of the level.
        folds: The number of outer folds.
        repeats: How often the division into folds is repeated.
        candidates: The number of candidates (strengths) of each method.
        map_folds: The number of folds that the maps are trained on.
        updates: The number of optimizer steps of a network, where ``epochs`` is None.
        epochs: The number of epochs of each network. None: enough for ``updates``.
        batch_size: The number of rows of a minibatch.
        lr: The learning rate of all methods. None: pilots choose it.
        seed: The seed of folds, weights, batches and masks.
        experiments: The experiments to run, from ``EXPERIMENTS``.
        metric: The primary measure, by name; see :mod:`thinned.studies.measures`. None: the
            log-loss or the RMSE.
        class_weight: "balanced": rows of rare classes weigh more in the loss, so that all classes
            have the same total weight. None: all rows weigh the same.
    """

    model: str = "mlp"
    methods: tuple[str, ...] = ()
    folds: int = 5
    repeats: int = 1
    candidates: int = 4
    map_folds: int = 2
    updates: int = 800
    epochs: int | None = None
    batch_size: int = 64
    lr: float | None = None
    seed: int = 0
    experiments: tuple[str, ...] = EXPERIMENTS
    metric: str | None = None
    class_weight: str | None = None

    def __post_init__(self) -> None:
        for name in self.methods:
            if not isinstance(name, str) or name not in STUDY_METHODS:
                raise unknown("method", name, STUDY_METHODS)
        if not isinstance(self.model, str):
            raise InputError(f"model has to be a name or 'module:function', but got {self.model!r}")
        if self.metric is not None and not isinstance(self.metric, str):
            raise InputError(f"--metric has to be the name of a measure, but got {self.metric!r}")
        if self.class_weight not in (None, "balanced"):
            raise InputError(f"--class-weight has to be balanced, but got {self.class_weight!r}")
        if self.lr is not None and not real(self.lr, "--lr") > 0:
            raise InputError(f"--lr has to be above 0, but got {self.lr}")
        # Python's own types, because those of NumPy cannot be written as JSON
        converted = {
            "folds": whole(self.folds, "--folds", 2),
            "repeats": whole(self.repeats, "--repeats", 1),
            "epochs": None if self.epochs is None else whole(self.epochs, "--epochs", 1),
            "lr": None if self.lr is None else float(self.lr),
            # with the number of a fold added, it still fits the 32 bits of scikit-learn
            "seed": whole(self.seed, "--seed", 0, 2**31 - 1),
        }
        for field_name, value in converted.items():
            object.__setattr__(self, field_name, value)

    def to_json(self) -> dict[str, Any]:
        """A JSON-serializable dict, for the header of the records."""
        return asdict(self)


LEVELS = {
    "quick": Settings(
        folds=3, candidates=2, map_folds=1, updates=400, experiments=("methods", "rate")
    ),
    "default": Settings(),
    "full": Settings(repeats=2, candidates=6, map_folds=5, updates=1500),
}


def network(model: str) -> Mlp | Cnn | Custom:
    """A built-in network by name, or the user's "module:function"."""
    if model in MODELS:
        return MODELS[model]
    if ":" in model:
        return Custom(model)
    raise InputError(
        f"{unknown('model', model, MODELS)}, or pass module:function for a model of your own"
    )


def epochs_for(settings: Settings, train_rows: int) -> int:
    """Enough epochs for about ``settings.updates`` steps, within 20 to 200."""
    if settings.epochs is not None:
        return settings.epochs
    return min(
        max(math.ceil(settings.updates / len(batch_ranges(train_rows, settings.batch_size))), 20),
        200,
    )


def context(settings: Settings, split: Split, fold: int, lr: float) -> Context:
    """The context of a fold: its recipe without a regularizer, with a seed of its own."""
    seed = settings.seed * 1000 + fold
    base = Recipe(
        network(settings.model),
        optimizer=Optimizer("adam", lr, decay="cosine"),
        epochs=epochs_for(settings, len(split.train)),
        batch_size=min(settings.batch_size, max(len(split.train) // 2, 1)),
        seed=seed,
        shuffle=seed,
    )
    return Context(base, split.image, settings.candidates)


def usable_methods(settings: Settings, split: Split) -> tuple[list[str], dict[str, str]]:
    """The methods that can run, and those that cannot, each with its reason."""
    custom = isinstance(network(settings.model), Custom)
    by_level = STUDY_METHODS if settings.candidates > 4 else DEFAULT_METHODS
    chosen = list(settings.methods or by_level)
    if "none" not in chosen:
        chosen.insert(0, "none")
    skipped = {}
    for name in chosen:
        if custom and STUDY_METHODS[name].builtin_only:
            skipped[name] = (
                "it changes the layers of the network, which works only for built-in models"
            )
        elif name == "label_smoothing" and split.task.kind == "regression":
            skipped[name] = "it is for classification"
    return [name for name in chosen if name not in skipped], skipped


@dataclass(frozen=True)
class NetworkJob:
    """A network to train, with the tags of every experiment that uses its result."""

    recipe: Recipe
    tags: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Chunk:
    """Networks that are trained together: the unit of progress and of resuming.

    Args:
        name: The name of the file for the records.
        fold: The fold of the data.
        jobs: The networks.
        size: The number of training rows, for a smaller training set. None: all.
        title: What the progress display shows.
    """

    name: str
    fold: int
    jobs: tuple[NetworkJob, ...]
    size: int | None
    title: str

    def cost(self, split: Split) -> float:
        """The number of network-steps, for the progress display."""
        first = self.jobs[0].recipe
        return len(self.jobs) * first.epochs * len(batch_ranges(len(split.train), first.batch_size))


def pilots(settings: Settings, splits: Sequence[Split]) -> list[Chunk]:
    """The chunks that choose the learning rate on validation rows.

    They train without a regularizer, with L2, and with weak and strong dropout. All methods then
    train at the chosen rate, so that no method is favored. Empty where the settings give a rate.
    """
    out: list[Chunk] = []
    for fold, split in enumerate(splits if settings.lr is None else ()):
        c = context(settings, split, fold, PILOT_LR[0])
        kinds = [
            c.base,
            c.base.at(drops=c.hidden(0.2)),
            c.base.at(drops=c.hidden(0.5)),
            c.base.at(l2=1e-4),
        ]
        one_by_one = shared_structure(c.base) is None
        tagged = [
            (
                kind.at(optimizer=replace(kind.optimizer, lr=lr)),
                {"experiment": "pilot", "lr": lr, "kind": i},
            )
            for lr in (PILOT_LR_FEW if one_by_one else PILOT_LR)
            for i, kind in enumerate(kinds[:2] if one_by_one else kinds)
        ]
        out += [
            Chunk("", fold, tuple(jobs), None, f"learning rate, fold {fold + 1}")
            for jobs in _merged(tagged)
        ]
    return [replace(c, name=f"{i:04d}") for i, c in enumerate(out)]


def choose_lr(settings: Settings, records: Sequence[dict[str, Any]]) -> float:
    """The learning rate with the lowest mean log validation loss of the pilots.

    The mean is over all folds, because the validation rows of one fold are too few to choose by.
    The choice therefore uses every row, equally for all methods.
    """
    if settings.lr is not None:
        return settings.lr
    losses: dict[float, list[float]] = {}
    for r in records:
        if r["experiment"] == "pilot":
            loss = r["scores"]["val"][0]
            losses.setdefault(r["lr"], []).append(
                math.log(max(loss, 1e-12)) if math.isfinite(loss) else math.inf
            )
    return min(losses, key=lambda lr: (sum(losses[lr]) / len(losses[lr]), lr))


def chunks(settings: Settings, splits: Sequence[Split], lr: float) -> list[Chunk]:
    """Everything that the study trains after its pilots; the methods of all folds come first."""
    methods, _ = usable_methods(settings, splits[0])
    start = len(pilots(settings, splits))
    first: list[Chunk] = []
    later: list[Chunk] = []
    for fold, split in enumerate(splits):
        c = context(settings, split, fold, lr)
        tagged = [
            (x.recipe, {"experiment": "methods", "method": method, "label": x.label})
            for method in methods
            for x in STUDY_METHODS[method].candidates(c)
        ]
        # networks that do not share a population take longer, so fewer of them are trained
        one_by_one = shared_structure(c.base) is None
        for name in settings.experiments:
            if name in _EXPERIMENTS and (fold < settings.map_folds or name == "rate"):
                tagged += _EXPERIMENTS[name](c, one_by_one)
        for job_group in _merged(tagged):
            target = (
                first
                if any(t["experiment"] == "methods" for job in job_group for t in job.tags)
                else later
            )
            target.append(Chunk("", fold, tuple(job_group), None, _chunk_title(job_group, fold)))
        if "size" in settings.experiments and fold < settings.map_folds and not one_by_one:
            for n, recipes in _sizes(c, len(split.train)):
                for job_group in _merged(recipes):
                    later.append(
                        Chunk(
                            "", fold, tuple(job_group), n, f"training-set size {n}, fold {fold + 1}"
                        )
                    )
    return [replace(c, name=f"{start + i:04d}") for i, c in enumerate(first + later)]


def _merged(tagged: Sequence[tuple[Recipe, dict[str, Any]]]) -> list[list[NetworkJob]]:
    """Jobs with each distinct recipe once, grouped as they are trained together."""
    tags: dict[Recipe, list[dict[str, Any]]] = {}
    for recipe, tag in tagged:
        tags.setdefault(recipe, []).append(tag)
    jobs = [NetworkJob(recipe, tuple(t)) for recipe, t in tags.items()]
    return [[jobs[i] for i in group] for group in group_recipes([j.recipe for j in jobs])]


def _chunk_title(jobs: Sequence[NetworkJob], fold: int) -> str:
    methods = list(
        dict.fromkeys(t["method"] for job in jobs for t in job.tags if t["experiment"] == "methods")
    )
    maps = list(
        dict.fromkeys(
            t["experiment"] for job in jobs for t in job.tags if t["experiment"] != "methods"
        )
    )
    title = (
        f"{len(methods)} methods"
        if len(methods) > 3
        else ", ".join(methods) or ", ".join(f"{m} map" for m in maps)
    )
    return f"{title}, fold {fold + 1}"


def _rate_curve(c: Context, one_by_one: bool) -> list[tuple[Recipe, dict[str, Any]]]:
    rates = RATES[::2] if one_by_one else RATES
    return [
        (c.base.at(drops=c.hidden(p) if p else ()), {"experiment": "rate", "rate": p})
        for p in rates
    ]


def _layer_map(c: Context, one_by_one: bool) -> list[tuple[Recipe, dict[str, Any]]]:
    """Rates of the first and last hidden layer, or of the input and a single hidden layer."""
    if one_by_one:
        return []
    rates, out = (0.0, 0.2, 0.4, 0.6, 0.8), []
    for a in rates:
        for b in rates:
            drops: tuple[Drop | None, ...] = (dropout(a), dropout(b))
            positions = ("input", "hidden layer")
            if c.layers > 1:
                drops = (None, dropout(a), *[None] * (c.layers - 2), dropout(b))
                positions = ("first hidden layer", "last hidden layer")
            if not a and not b:
                drops = ()
            if c.layers == 2 and a == b and a:
                drops = c.hidden(a)  # the same recipe as on the rate curve
            out.append(
                (
                    c.base.at(drops=drops),
                    {"experiment": "layers", "first": a, "last": b, "positions": positions},
                )
            )
    return out


def _batch_map(c: Context, one_by_one: bool) -> list[tuple[Recipe, dict[str, Any]]]:
    """Batch sizes, with the learning rate proportional to the root of the batch size."""
    if one_by_one:
        return []
    out = []
    for size in (
        c.base.batch_size // 2,
        c.base.batch_size,
        2 * c.base.batch_size,
        4 * c.base.batch_size,
    ):
        lr = c.base.optimizer.lr * math.sqrt(size / c.base.batch_size)
        for p in (0.0, 0.2, 0.4, 0.6):
            recipe = c.base.at(
                drops=c.hidden(p) if p else (),
                batch_size=max(size, 1),
                optimizer=replace(c.base.optimizer, lr=lr),
            )
            out.append((recipe, {"experiment": "batch", "rate": p, "batch": size}))
    return out


_OPTIMIZERS: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "SGD": ("sgd", {}, (0.05, 0.3)),
    "SGD, momentum": ("sgd", {"momentum": 0.9}, (0.01, 0.05)),
    "SGD, Nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}, (0.01, 0.05)),
    "Adam": ("adam", {}, (2e-3, 6e-3)),
    "AdamW": ("adamw", {}, (2e-3, 6e-3)),
    "RMSProp": ("rmsprop", {}, (5e-4, 2e-3)),
    "Adadelta": ("adadelta", {}, (0.5, 2.0)),
    "Adagrad": ("adagrad", {}, (0.01, 0.03)),
}


def _optimizer_map(c: Context, one_by_one: bool) -> list[tuple[Recipe, dict[str, Any]]]:
    """Every optimizer with two learning rates of its own; validation later chooses one of them."""
    if one_by_one:
        return []
    out = []
    for title, (name, options, rates) in _OPTIMIZERS.items():
        for lr in rates:
            optimizer = replace(c.base.optimizer, name=name, lr=lr, **options)
            for p in (0.0, 0.25, 0.5):
                recipe = c.base.at(drops=c.hidden(p) if p else (), optimizer=optimizer)
                out.append(
                    (recipe, {"experiment": "optimizer", "rate": p, "optimizer": title, "lr": lr})
                )
    return out


def _sizes(c: Context, n: int) -> list[tuple[int, list[tuple[Recipe, dict[str, Any]]]]]:
    """Training sets of n / 16, n / 8 ... n rows, all with the same number of updates."""
    sizes = [max(n // k, c.base.batch_size) for k in (16, 8, 4, 2, 1)]
    return [
        (
            size,
            [
                (
                    c.base.at(drops=c.hidden(p) if p else ()),
                    {"experiment": "size", "rate": p, "size": size},
                )
                for p in (0.0, 0.25, 0.5)
            ],
        )
        for size in dict.fromkeys(sizes)
    ]


_EXPERIMENTS: dict[str, Callable[[Context, bool], list[tuple[Recipe, dict[str, Any]]]]] = {
    "rate": _rate_curve,
    "layers": _layer_map,
    "batch": _batch_map,
    "optimizer": _optimizer_map,
}
