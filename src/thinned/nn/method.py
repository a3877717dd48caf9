"""Layers that call a dropout function, for methods that no :class:`thinned.Drop` expresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from .._errors import InputError
from ..algebra.schedule import SCHEDULES
from .module import RatedModule, check_argument_names


class FunctionLayer(RatedModule, _DropoutNd):
    """Base of the layers that call a function of :mod:`thinned.functional`. Abstract.

    Args:
        method: Called as ``method(*inputs, training=, key=, **settings)``.
        rate_name: The name of its rate among ``settings``, or None where it has none. The rate may
            be a schedule, moved by :meth:`ModelKey.at` or :func:`thinned.step`.
        rate_sets_shape: Whether the shape of the result depends on the rate. Then a compiled graph
            captures the rate as a number, and is compiled again when a schedule moves it.
        off_settings: Replaces these settings while the noise is off, for settings that drop
            although the rate is 0.
        settings: The other arguments of ``method``, and the rate.

    Raises:
        InputError: Where ``method`` lacks an argument, the rate is missing, or an argument other
            than the rate is a schedule.
    """

    def __init__(
        self,
        method: Callable[..., Any],
        /,
        rate_name: str | None = "p",
        *,
        rate_sets_shape: bool = False,
        off_settings: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        check_method(method, settings)
        if rate_name is not None and rate_name not in settings:
            raise InputError(
                f"the rate {rate_name!r} of {name_of(method)} is missing; write {rate_name}=0.1, "
                "or rate_name=None for a function without a rate"
            )
        moving = [name for name, value in settings.items() if isinstance(value, SCHEDULES)]
        if moving and moving != [rate_name]:
            raise InputError(
                f"only the rate may be a schedule, but got a schedule for {', '.join(moving)}"
            )
        self.method, self.rate_name, self.rate_sets_shape = method, rate_name, rate_sets_shape
        self.off_settings = off_settings or {}
        self.settings = {name: value for name, value in settings.items() if name != rate_name}
        super().__init__(0.0)
        self.set_initial_rate(0.0 if rate_name is None else settings[rate_name])

    def forward(self, *inputs: Any) -> Any:
        """Call the method as the mode says."""
        mode = self.mode()
        if self.rate_name is None:
            key = self.call_key() if mode == "sample" else None
            return self.method(*inputs, training=mode == "sample", key=key, **self.settings)
        rate = self._rate if self.rate_sets_shape else self.current_rate()
        if mode == "sample" and (isinstance(rate, Tensor) or rate or self.off_settings):
            key = self.call_key()
            return self.method(
                *inputs, training=True, key=key, **{self.rate_name: rate}, **self.settings
            )
        # "off" is training at rate 0: methods with classic scaling would scale in evaluation
        rates = {self.rate_name: self._rate if mode == "mean" else 0.0}
        settings = self.settings | self.off_settings if mode == "off" else self.settings
        return self.method(*inputs, training=mode != "mean", **rates, **settings)

    def extra_repr(self) -> str:
        rate = {} if self.rate_name is None else {self.rate_name: self._rate}
        return ", ".join(f"{name}={value}" for name, value in (rate | self.settings).items())


class MethodDropout(FunctionLayer):
    """Turns a function of your own into a dropout layer with a rate, a mode and a key.

    While training (and under :func:`thinned.sampling`) it calls ``method(*inputs, training=True,
    key=key, **settings)``; in evaluation ``training`` is False. Masks that ``method`` draws with
    this key by the functions ``bernoulli_mask``, ``uniform``, ``normal`` and ``random_subset`` of
    :mod:`thinned.functional` are reproducible: a function of seed, layer, step and sample id.
    Inputs and result are those of ``method``.

    Args:
        method: The function. It takes its inputs by position, and ``training``, ``key`` and
            ``settings`` by name.
        rate_name: The name of its rate among ``settings``, or None where it has none. The rate may
            be a schedule, moved by :meth:`ModelKey.at` or :func:`thinned.step`.
        rate_sets_shape: Whether the shape of the result depends on the rate. Then a compiled graph
            is compiled again when a schedule moves the rate.
        off_settings: Replaces these settings while the noise is off (:func:`thinned.off`), for
            settings that drop although the rate is 0.
        settings: The other arguments of ``method``, and the rate, in [0, 1].

    Raises:
        InputError: Where ``method`` lacks an argument, the rate is missing, or an argument other
            than the rate is a schedule.

    Example:
        >>> import thinned.functional as TF
        >>> import thinned.nn as tnn
        >>> tnn.MethodDropout(TF.drop_head, p=0.2)
        MethodDropout(drop_head, p=0.2)

    Reference:
        docs/extending.md, "Write your own method".
    """

    def extra_repr(self) -> str:
        return f"{name_of(self.method)}, {super().extra_repr()}".rstrip(", ")


def name_of(method: Callable[..., Any]) -> str:
    """The name of a function, or of the class of a callable object."""
    return str(getattr(method, "__name__", type(method).__name__))


def check_method(method: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Raise where ``method`` takes no ``training`` or ``key``, or lacks one of ``settings``."""
    try:
        check_argument_names(name_of(method), method, {"training": 0, "key": 0, **settings})
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        # a builtin function has no signature
