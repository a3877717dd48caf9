"""Callbacks for skorch: watching, keys, schedules, and checks at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._optional import missing
from ..checks.finding import Findings
from ..checks.watch import Watch, watch
from ..nn import step
from ..surgery import key
from .attempts import Attempts
from .shared import check_and_warn

try:
    from skorch.callbacks import Callback
    from skorch.dataset import unpack_data
    from skorch.utils import to_tensor
except ImportError as e:
    raise ImportError(missing(e, "skorch")) from e


def inputs_of(net: Any, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional, named) inputs, as ``net.infer`` calls the module."""
    x = to_tensor(x, device=net.device)
    return ((), dict(x)) if isinstance(x, Mapping) else ((x,), {})


class WatchCallback(Callback):  # type: ignore[misc, unused-ignore]
    """:func:`thinned.watch` in ``net.fit``; its ``watch_`` is the :class:`thinned.Watch` of the
    last fit.

    An error of a sample ends the watching with a warning, not the fit. The loss is that of
    ``net.get_loss``, the validation loss is ``valid_loss``:
    ``NeuralNetClassifier(Module, callbacks=[WatchCallback()])``.

    Args:
        every: Sample every so many steps; None samples as often as ``budget`` allows.
        budget: The share of the training time that watching may take.
        window: How many samples a verdict is based on.
        log: Where values are sent; see :func:`thinned.watch`.
        show: Whether to show a live table.
    """

    def __init__(
        self,
        every: int | None = None,
        budget: float = 0.03,
        window: int = 8,
        log: Any = None,
        show: bool = False,
    ) -> None:
        self.every, self.budget, self.window, self.log, self.show = every, budget, window, log, show

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        def forward(model: Any, x: Any, target: Any) -> Any:
            args, named = inputs_of(net, x)
            return net.get_loss(model(*args, **named), target, X=x, training=model.training)

        self._attempts = Attempts("watching")
        self.watch_: Watch = watch(
            net.module_,
            forward=forward,
            every=self.every,
            budget=self.budget,
            window=self.window,
            log=self.log,
            show=self.show,
        )

    def on_batch_end(
        self, net: Any, batch: Any = None, training: Any = None, loss: Any = None, **kwargs: Any
    ) -> None:
        """Sample here, where the gradients still exist."""
        if training:
            self._attempts(lambda: self.watch_.step(*unpack_data(batch), loss=loss))

    def on_epoch_end(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        if "valid_loss" in net.history[-1]:
            self._attempts(self.watch_.validated, net.history[-1]["valid_loss"])

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self._attempts(self.watch_.close)


class ThinnedCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Does for thinned layers what a training loop does, at the right hooks of ``net.fit``.

    ``findings_`` holds what ``check=True`` found.

    Args:
        key: A seed: masks are functions of the number of training batches so far
            (:func:`thinned.key`), which ``partial_fit`` continues. None leaves the module unkeyed.
        schedules: Whether to move rates by that number; a key does so anyway.
        check: Whether to run :func:`thinned.check` on the first batch and warn of its findings.
    """

    def __init__(self, key: int | None = None, schedules: bool = True, check: bool = False) -> None:
        self.key, self.schedules, self.check = key, schedules, check

    def initialize(self) -> ThinnedCallback:
        self.step_ = 0
        self.findings_: Any = None
        self.key_: Any = None
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.on_train_end(net)  # in case an error ended the last fit
        self.key_ = None if self.key is None else key(net.module_, self.key)

    def on_batch_begin(
        self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any
    ) -> None:
        if not training:
            return
        if self.key_ is not None:
            self.key_.at(self.step_)
        elif self.schedules:
            step(net.module_, self.step_)
        self.step_ += 1
        if self.check and self.findings_ is None:
            self._check(net, batch)

    def _check(self, net: Any, batch: Any) -> None:
        def found() -> Findings:
            args, named = inputs_of(net, unpack_data(batch)[0])
            net.module_.train()  # as the net does for this batch next
            return check_and_warn(net.module_, args, named)

        self.findings_ = Findings()  # once, whatever happens
        result = Attempts("the check")(found)
        self.findings_ = self.findings_ if result is None else result

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        if self.key_ is not None:
            self.key_.remove()
            self.key_ = None
