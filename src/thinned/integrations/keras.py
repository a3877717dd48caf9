"""A callback for Keras 3 on any backend: what dropout does, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .._optional import missing
from ..checks.finding import Findings
from ..checks.watch.judging import Verdict, judge
from ..checks.watch.watched import rows

try:
    import keras
except ImportError as e:
    raise ImportError(missing(e, "keras")) from e


class WatchCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Watch the dropout layers of a Keras model while it fits.

    ``x``, ``y``: a batch of training data that is measured at the end of each ``every``-th epoch,
    with dropout and without; Keras shows a callback no batch. ``window``: how many epochs a verdict
    looks back, at least 4. The validation loss is ``val_loss``. Variables (those of random
    generators and of batch normalisation too) and torch's generator are put back, so that the fit
    is not changed.

    ``history``, ``verdicts`` and ``findings`` are as those of :class:`thinned.Watch`; printed, it
    is a table and the verdict.
    """

    def __init__(self, x: Any, y: Any, every: int = 1, window: int = 8) -> None:
        super().__init__()
        self.x, self.y, self.every, self.window = x, y, every, window
        self.history: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if epoch % self.every == 0:
            self.history.append(
                {"what": "sample", "step": epoch + 1, "loss": logs.get("loss")} | self._measure()
            )
        if "val_loss" in logs:
            self.history.append(
                {"what": "validation", "step": epoch + 1, "loss": float(logs["val_loss"])}
            )

    def _measure(self) -> dict[str, Any]:
        layers = list(_dropouts(self.model))
        seen: dict[str, list[Any]] = {}
        evaluated: dict[str, list[Any]] = {}

        def counting(into: dict[str, list[Any]]) -> Callable[[Any, Any, Any], Any]:
            return lambda layer, given, result: into.setdefault(_name(layer), []).extend(
                _fell(given, result)
            )

        losses = []  # each from the variables as the fit left them: a pass in training moves batch normalisation
        for training, see in ((True, counting(seen)), (False, counting(evaluated)), (True, None)):
            with _restored(self.model), _called(layers, see):
                losses.append(self._loss(training))
        train, evaluation, alone = losses
        names = {_name(layer): layer for layer in layers}
        rates = {
            name: _rate(layer, seen.get(name, ()), evaluated.get(name, ()))
            for name, layer in names.items()
        }
        quiet = [n for n, r in rates.items() if n in seen and r["nominal"] and not r["in_train"]]
        return {
            "train": train, "eval": evaluation, "alone": alone, "rates": rates, "quiet": quiet, "training": True,
            "masks": {}, "dead": {}, "shift": {}, "gradients": {},
        }  # fmt: skip

    def _loss(self, training: bool) -> float:
        out = self.model(self.x, training=training)
        return float(
            keras.ops.convert_to_numpy(
                self.model.compute_loss(x=self.x, y=self.y, y_pred=out, training=training)
            )
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return judge(self.history, self.window)[0]

    @property
    def findings(self) -> Findings:
        return judge(self.history, self.window)[1]

    def __str__(self) -> str:
        table = "\n".join("  ".join(row) for row in rows(self))
        found = self.findings
        return "\n".join(
            [table, *(f"* {v}" for v in self.verdicts), *([str(found)] if found else [])]
        )


def _dropouts(model: Any) -> Iterator[Any]:
    for layer in model._flatten_layers():
        if (
            isinstance(getattr(layer, "rate", None), (int, float))
            and "drop" in type(layer).__name__.lower()
        ):
            yield layer


def _name(layer: Any) -> str:
    return str(layer.path or layer.name)  # a layer that holds nothing may have no path


def _rate(layer: Any, seen: Any, evaluated: Any) -> dict[str, Any]:
    fell, of = sum(seen[::2]), sum(seen[1::2])
    zeroes = "dropout" in type(layer).__name__.lower() and not type(layer).__name__.startswith(
        ("Gaussian", "Alpha")
    )
    measured = fell / of if of and zeroes else None
    changed = bool(fell) or (not zeroes and bool(of))
    return {
        "kind": "dropout", "nominal": float(layer.rate), "measured": measured, "in_train": changed,
        "in_eval": bool(sum(evaluated[::2])),
    }  # fmt: skip


def _fell(given: Any, result: Any) -> tuple[int, int]:
    a, b = keras.ops.convert_to_numpy(given), keras.ops.convert_to_numpy(result)
    return (int(((a != 0) & (b == 0)).sum()), int((a != 0).sum())) if a.shape == b.shape else (0, 0)


@contextmanager
def _called(layers: list[Any], see: Callable[[Any, Any, Any], Any] | None) -> Iterator[None]:
    """Within: ``see`` is shown what goes in and out of each layer; None: the layers return their
    input.
    """

    def wrapped(layer: Any, call: Any) -> Any:
        def run(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if see is None:
                return inputs
            result = call(inputs, *args, **kwargs)
            see(layer, inputs, result)
            return result

        return run

    for layer in layers:
        layer.__dict__["call"] = wrapped(layer, type(layer).call.__get__(layer))
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["call"]


@contextmanager
def _restored(model: Any) -> Iterator[None]:
    variables = [*model.non_trainable_variables, *model.metrics_variables]
    before = [(v, keras.ops.copy(v.value)) for v in variables]
    try:
        with ExitStack() as stack:
            if (
                keras.backend.backend() == "torch"
            ):  # there dropout draws from torch's own generator, which is no variable
                import torch

                stack.enter_context(torch.random.fork_rng())
                stack.enter_context(torch.no_grad())
            yield
    finally:
        for variable, value in before:
            variable.assign(value)
