"""The layers of functions: methods that no :class:`thinned.Drop` expresses, as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from .._errors import InputError
from ..algebra.schedule import SCHEDULES
from .module import RatedModule


class FunctionLayer(RatedModule, _DropoutNd):
    """Base of the layers that call a function of :mod:`thinned.functional`. Abstract.

    Args:
        method: Called as ``method(*inputs, training=, key=, **settings)``.
        rate: The name of its rate among ``settings``, or None where it has none. The rate may be a
            schedule, moved by :meth:`ModelKey.at` or :func:`thinned.step`.
        shapes: Whether the rate decides the result's shape. Then a compiled graph holds the rate,
            and a schedule compiles anew.
        off: The settings that draw although the rate is 0, as they are when the noise is off.
        settings: The other arguments of ``method``.

    Raises:
        InputError: Where a schedule stands in the place of something else than the rate.
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
            key = self.call_key()
            return self.method(
                *inputs, training=True, key=key, **{self.rate: rate}, **self.settings
            )
        now = {self.rate: self._rate if mode == "mean" else 0.0}
        settings = self.settings | self.off if mode == "off" else self.settings
        return self.method(*inputs, training=mode != "mean", **now, **settings)

    def extra_repr(self) -> str:
        rate = {} if self.rate is None else {self.rate: self._rate}
        return ", ".join(f"{name}={value}" for name, value in (rate | self.settings).items())


class MethodDropout(FunctionLayer):
    """A function of your own as a dropout layer with a rate, a mode and a key.

    While training (and under :func:`thinned.sampling`) it calls ``method(*inputs, training=True,
    key=key, **settings)``; in evaluation ``training`` is False. Everything that ``method`` draws
    with that key, by :func:`thinned.functional.bernoulli_mask`, ``uniform``, ``normal`` and
    ``random_subset``, keeps the mask contract.

    Args:
        method: The function.
        rate: The name of its rate among ``settings``, or None where it has none. The rate may be a
            schedule, moved by :meth:`ModelKey.at` or :func:`thinned.step`.
        shapes: Whether the rate decides the result's shape; then a schedule compiles anew.
        off: The settings that draw although the rate is 0, as they are when the noise is off.
        settings: The other arguments of ``method``.

    Raises:
        InputError: Where a schedule stands in the place of something else than the rate.

    Example:
        >>> import thinned.functional as F
        >>> MethodDropout(F.drop_head, p=0.2)
        MethodDropout(drop_head, p=0.2)

    Reference:
        docs/extending.md, "Write your own method".
    """

    def extra_repr(self) -> str:
        return f"{self.method.__name__}, {super().extra_repr()}".rstrip(", ")
