"""Where the values of a watched run are sent: TensorBoard, loggers, functions, the terminal."""

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
)  # in the part of a name that is the name of a layer; "/" would start a new path


class Sinks:
    """All receivers of the records."""

    def __init__(
        self, sends: Sequence[Send], view: Any = None, closing: Sequence[Callable[[], Any]] = ()
    ) -> None:
        self.sends, self.view, self.closing = tuple(sends), view, tuple(closing)

    @classmethod
    def of(cls, log: Any, show: bool) -> Sinks:
        """The sinks of the arguments ``log`` and ``show`` of :func:`thinned.watch`.

        Raises :class:`thinned.InputError` for an object that cannot log.
        """
        opened: list[Callable[[], Any]] = []
        sinks = log if isinstance(log, (list, tuple)) else [] if log is None else [log]
        sends = [_send(sink, opened) for sink in sinks]
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

    Names consist of ASCII letters, digits, "_", "-", ".", "/" and spaces, which MLflow accepts on
    every system. Other characters in the name of a layer become "_"; names that are then equal get
    another "_" at the end.
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
    """The names of layers as loggers accept them; legal names are kept."""
    legal = {layer: layer for layer in layers if not _ILLEGAL.search(layer)}
    for layer in layers:
        if layer not in legal:
            name = _ILLEGAL.sub("_", layer)
            while name in legal.values():
                name += "_"
            legal[layer] = name
    return legal


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
        "log has to be a folder, a function of a dict, or an object with add_scalar, log_metrics "
        f"or log, but got {sink!r}"
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
