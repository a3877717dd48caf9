"""A callback for Keras 3, on any backend: what dropout does in each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .._optional import missing
from ..checks.finding import Findings
from ..checks.watch.judging import Verdict, judge
from ..checks.watch.report import table_rows
from .attempts import Attempts

try:
    import keras
except ImportError as e:
    raise ImportError(missing(e, "keras")) from e


class WatchCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Watch the dropout layers of a Keras model while it fits.

    At the end of an epoch it measures one batch, with dropout and without. The validation loss is
    ``val_loss``. Variables, also those of random generators and batch normalization, and the
    generator of torch are restored, so the fit is unchanged. ``history``, ``verdicts`` and
    ``findings`` are those of :class:`thinned.Watch`; printed, it is a table with verdicts.

    Args:
        x: The inputs of a batch of training data; Keras passes no batch to callbacks.
        y: The targets of that batch.
        every: Measure at the end of every so many epochs.
        window: How many epochs a verdict is based on, at least 4.
    """

    def __init__(self, x: Any, y: Any, every: int = 1, window: int = 8) -> None:
        super().__init__()
        self.x, self.y, self.every, self.window = x, y, every, window
        self.history: list[dict[str, Any]] = []
        self._attempts = Attempts("watching")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if epoch % self.every == 0 and (measured := self._attempts(self._measure)) is not None:
            self.history.append(
                {"what": "sample", "step": epoch + 1, "loss": logs.get("loss")} | measured
            )
        if "val_loss" in logs:
            self.history.append(
                {"what": "validation", "step": epoch + 1, "loss": float(logs["val_loss"])}
            )

    def _measure(self) -> dict[str, Any]:
        layers = list(_dropout_layers(self.model))
        trained: dict[str, list[Any]] = {}
        evaluated: dict[str, list[Any]] = {}

        def counting(into: dict[str, list[Any]]) -> Callable[[Any, Any, Any], Any]:
            return lambda layer, x, result: into.setdefault(_name(layer), []).extend(
                _count_dropped(x, result)
            )

        # Each pass starts from the variables of the fit, because a pass in training moves batch
        # normalization.
        losses = []
        passes = ((True, counting(trained)), (False, counting(evaluated)), (True, None))
        for training, observe in passes:
            with _restored(self.model), _observed_calls(layers, observe):
                losses.append(self._loss(training))
        train, evaluation, without = losses
        names = {_name(layer): layer for layer in layers}
        rates = {
            name: _rate_record(layer, trained.get(name, ()), evaluated.get(name, ()))
            for name, layer in names.items()
        }
        inactive = [
            n for n, r in rates.items() if n in trained and r["nominal"] and not r["in_train"]
        ]
        return {
            "train": train,
            "eval": evaluation,
            "without": without,
            "rates": rates,
            "inactive": inactive,
            "training": True,
            "masks": {},
            "dead": {},
            "shift": {},
            "gradients": {},
        }

    def _loss(self, training: bool) -> float:
        out = self.model(self.x, training=training)
        return float(
            keras.ops.convert_to_numpy(
                self.model.compute_loss(x=self.x, y=self.y, y_pred=out, training=training)
            )
        )

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Verdicts on the fit so far, one sentence each."""
        return judge(self.history, self.window)[0]

    @property
    def findings(self) -> Findings:
        """The known mistakes that showed."""
        return judge(self.history, self.window)[1]

    def __str__(self) -> str:
        table = "\n".join("  ".join(row) for row in table_rows(self))
        found = self.findings
        return "\n".join(
            [table, *(f"* {v}" for v in self.verdicts), *([str(found)] if found else [])]
        )


def _dropout_layers(model: Any) -> Iterator[Any]:
    for layer in model._flatten_layers():
        if (
            isinstance(getattr(layer, "rate", None), (int, float))
            and "drop" in type(layer).__name__.lower()
        ):
            yield layer


def _name(layer: Any) -> str:
    return str(layer.path or layer.name)  # a layer without variables may have no path


def _rate_record(layer: Any, trained: Any, evaluated: Any) -> dict[str, Any]:
    dropped, elements = sum(trained[::2]), sum(trained[1::2])
    zeroes = "dropout" in type(layer).__name__.lower() and not type(layer).__name__.startswith(
        ("Gaussian", "Alpha")
    )
    measured = dropped / elements if elements and zeroes else None
    changed = bool(dropped) or (not zeroes and bool(elements))
    return {
        "kind": "dropout",
        "nominal": float(layer.rate),
        "measured": measured,
        "in_train": changed,
        "in_eval": bool(sum(evaluated[::2])),
    }


def _count_dropped(x: Any, result: Any) -> tuple[int, int]:
    """(elements that became 0, elements that were not 0)"""
    a, b = keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(result)
    return (int(((a != 0) & (b == 0)).sum()), int((a != 0).sum())) if a.shape == b.shape else (0, 0)


@contextmanager
def _observed_calls(
    layers: list[Any], observe: Callable[[Any, Any, Any], Any] | None
) -> Iterator[None]:
    """Pass input and output of each call to ``observe``; with None, layers return their input."""

    def wrapped(layer: Any, call: Any) -> Any:
        def run(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if observe is None:
                return inputs
            result = call(inputs, *args, **kwargs)
            observe(layer, inputs, result)
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
            # On this backend dropout draws from the generator of torch, which is not a variable.
            if keras.backend.backend() == "torch":
                import torch

                stack.enter_context(torch.random.fork_rng())
                stack.enter_context(torch.no_grad())
            yield
    finally:
        for variable, value in before:
            variable.assign(value)
