"""Where the values of a watched run go: TensorBoard, loggers, functions, the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..._errors import InputError
from ..._optional import missing

Send = Callable[[dict[str, float], int], Any]
_ILLEGAL = re.compile(
    r"[^A-Za-z0-9_\-. ]"
)  # in a layer's part of a name; a "/" would be a path of its own


class Sinks:
    """Everything that a record is sent to."""

    def __init__(
        self, sends: Sequence[Send], view: Any = None, closing: Sequence[Callable[[], Any]] = ()
    ) -> None:
        self.sends, self.view, self.closing = tuple(sends), view, tuple(closing)

    @classmethod
    def of(cls, log: Any, show: bool) -> Sinks:
        """Sinks for what a caller names. Raises :class:`thinned.InputError` for what cannot log."""
        opened: list[Callable[[], Any]] = []
        each = log if isinstance(log, (list, tuple)) else [] if log is None else [log]
        sends = [_send(one, opened) for one in each]
        return cls(sends, _view() if show else None, opened)

    def write(self, watch: Any, record: dict[str, Any]) -> None:
        if self.sends:
            values = scalars(record)
            for send in self.sends:
                send(values, record["step"])
        if self.view is not None:
            self.view.show(watch)

    def close(self) -> None:
        for close in self.closing:
            close()
        if self.view is not None:
            self.view.close()


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """A record as flat names and numbers, such as "watch/rate/fc1.drop".

    Names hold ASCII letters, digits, "_", "-", ".", "/" and spaces alone, which is all that MLflow
    takes on every system; what else a layer's name holds becomes "_", and names that are then equal
    are told apart by "_" at the end.
    """
    if record["what"] == "validation":
        return {"watch/loss/validation": record["loss"]}
    found = {
        "watch/loss/step": record["loss"],
        "watch/loss/train_mode": record["train"],
        "watch/loss/eval_mode": record["eval"],
    }
    of_layers: dict[str, dict[str, Any]] = {
        "rate": {name: rate["measured"] for name, rate in record["rates"].items()},
        "dead": {name: dead / of for name, (dead, of) in record["dead"].items() if of},
        "shift": {name: shift["ratio"] for name, shift in record["shift"].items()},
        "gradient": record["gradients"],
    }
    for what, values in of_layers.items():
        names = _legal(values)
        found |= {f"watch/{what}/{names[layer]}": value for layer, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def _legal(layers: Iterable[str]) -> dict[str, str]:
    """Each layer's name as loggers take it. Names that are legal stay what they are."""
    made = {layer: layer for layer in layers if not _ILLEGAL.search(layer)}
    for layer in layers:
        if layer not in made:
            name = _ILLEGAL.sub("_", layer)
            while name in made.values():
                name += "_"
            made[layer] = name
    return made


def _send(sink: Any, opened: list[Callable[[], Any]]) -> Send:
    if isinstance(sink, (str, os.PathLike)):
        sink = _tensorboard(os.fspath(sink))
        opened.append(sink.close)
    if hasattr(sink, "add_scalar"):
        return lambda values, step: [
            sink.add_scalar(name, value, step) for name, value in values.items()
        ]
    if hasattr(sink, "log_metrics"):
        return lambda values, step: sink.log_metrics(values, step)
    if hasattr(sink, "log"):
        return lambda values, step: sink.log({**values, "watch/step": step})
    if callable(sink):
        return lambda values, step: sink({**values, "watch/step": step})
    raise InputError(
        f"log has to have add_scalar, log_metrics or log, be a function of a dict, or a folder, but got {sink!r}"
    )


def _tensorboard(folder: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ImportError(missing(e, "tensorboard")) from e
    return SummaryWriter(folder)


def _view() -> Any:
    try:
        from .view import View
    except ImportError as e:
        raise ImportError(missing(e, "watch")) from e
    return View()
