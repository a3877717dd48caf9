"""Callbacks for skorch: watch a training, move keys and schedules, check at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._optional import missing
from ..checks.watch import Watch, watch
from ..nn import key, step
from .shared import checked

try:
    from skorch.callbacks import Callback
    from skorch.dataset import unpack_data
    from skorch.utils import to_tensor
except ImportError as e:
    raise ImportError(missing(e, "skorch")) from e


def inputs_of(net: Any, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(positional, named): how ``net.infer`` calls the module."""
    x = to_tensor(x, device=net.device)
    return ((), dict(x)) if isinstance(x, Mapping) else ((x,), {})


class WatchCallback(Callback):  # type: ignore[misc, unused-ignore]
    """:func:`thinned.watch` in ``net.fit``. ``watch_`` is the :class:`thinned.Watch` of the last
    fit.

    The loss is the net's own (``net.get_loss``), the validation loss its ``valid_loss``. ``every``,
    ``budget``, ``window``, ``log``, ``show``: as of :func:`thinned.watch`.

    ``NeuralNetClassifier(Module, callbacks=[WatchCallback()])``
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
        def forward(model: Any, given: Any, target: Any) -> Any:
            args, named = inputs_of(net, given)
            return net.get_loss(model(*args, **named), target, X=given, training=model.training)

        options = {
            "every": self.every,
            "budget": self.budget,
            "window": self.window,
            "log": self.log,
            "show": self.show,
        }
        self.watch_: Watch = watch(net.module_, forward=forward, **options)

    def on_batch_end(
        self, net: Any, batch: Any = None, training: Any = None, loss: Any = None, **kwargs: Any
    ) -> None:
        """Gradients still stand here."""
        if training:
            self.watch_.step(*unpack_data(batch), loss=loss)

    def on_epoch_end(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        if "valid_loss" in net.history[-1]:
            self.watch_.validated(net.history[-1]["valid_loss"])

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.watch_.close()


class ThinnedCallback(Callback):  # type: ignore[misc, unused-ignore]
    """What a training loop does for thinned layers, done by ``net.fit``.

    ``key``: a seed; the masks are then functions of how many batches were trained on before
    (:func:`thinned.key`), and go on from there in ``partial_fit``. ``schedules``: move rates by
    that count. ``check``: run ``thinned.check`` on the first batch, and warn of what it finds;
    ``findings_`` holds it.
    """

    def __init__(self, key: int | None = None, schedules: bool = True, check: bool = False) -> None:
        self.key, self.schedules, self.check = key, schedules, check

    def initialize(self) -> ThinnedCallback:
        self.step_ = 0
        self.findings_: Any = None
        self.key_: Any = None
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        self.on_train_end(net)  # of a fit that an error ended
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
            self._checked(net, batch)

    def _checked(self, net: Any, batch: Any) -> None:
        args, named = inputs_of(net, unpack_data(batch)[0])
        net.module_.train()  # as the net does for this batch in a moment
        self.findings_ = checked(net.module_, args, named)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        if self.key_ is not None:
            self.key_.remove()
            self.key_ = None
