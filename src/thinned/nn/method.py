"""The host of functions: a method that is no point, as a module with a rate, a mode and a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from .._errors import InputError
from ..algebra.schedule import SCHEDULES
from .module import RatedModule


class MethodDropout(RatedModule, _DropoutNd):
    """A function of :mod:`thinned.functional` as a layer; made by :func:`thinned.nn.Cutout` and its
    like.

    ``method``: called as ``method(*inputs, training=, key=, **settings)``. ``rate``: the name of
    its rate among ``settings``, or None; a schedule may stand there, moved by :meth:`ModelKey.at`
    or :func:`thinned.step`. ``shapes``: does the rate decide the result's shape? Then a compiled
    graph holds it, and a schedule compiles anew. ``off``: the settings that draw though the rate is
    0, as they are when the noise is off.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        /,
        rate: str | None = "p",
        *,
        shapes: bool = False,
        off: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        moving = [name for name, value in settings.items() if isinstance(value, SCHEDULES)]
        if moving and moving != [rate]:
            raise InputError(
                f"a schedule stands in the place of the rate, but got it for {', '.join(moving)}"
            )
        self.method, self.rate, self.shapes, self.off = method, rate, shapes, off or {}
        self.settings = {name: value for name, value in settings.items() if name != rate}
        super().__init__(0.0)
        self.start(0.0 if rate is None else settings[rate])

    def forward(self, *inputs: Any) -> Any:
        mode = self.mode()
        if self.rate is None:
            key = self.call_key() if mode == "sample" else None
            return self.method(*inputs, training=mode == "sample", key=key, **self.settings)
        rate = self._rate if self.shapes else self.now()
        if mode == "sample" and (isinstance(rate, Tensor) or rate or self.off):
            return self.method(
                *inputs, training=True, key=self.call_key(), **{self.rate: rate}, **self.settings
            )
        now = {self.rate: self._rate if mode == "mean" else 0.0}
        settings = self.settings | self.off if mode == "off" else self.settings
        return self.method(*inputs, training=mode != "mean", **now, **settings)

    def extra_repr(self) -> str:
        rate = {} if self.rate is None else {self.rate: self._rate}
        shown = ", ".join(f"{k}={v}" for k, v in (rate | self.settings).items())
        return f"{self.method.__name__}, {shown}".rstrip(", ")
