"""``thinned.predict``: the predictions of a torch model with uncertainty."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from .._errors import InputError, choice, flag, probability, real, whole
from ..algebra.key import checked_seed
from ..nn.contexts import entered
from ..nn.modes import drawing_by
from ..nn.module import DropoutModule
from ..surgery import modes
from ..surgery.foreign import ForeignSites, foreign_sites
from ..surgery.model_access import force_eager, tensors_in, unwrap
from . import batches
from .draws import Draws, ExactDraws, StratifiedDraws
from .passes import Passes, flatten, keeping_generators, rebuild
from .statistics import FIRST_LOOK, KINDS, Collector, Outputs, error_bound

Method = Literal["monte carlo", "weight scaling", "geometric", "exact"]
METHODS = ("monte carlo", "weight scaling", "geometric", "exact")


def predict(
    model: nn.Module,
    data: Any,
    samples: int = 100,
    *,
    method: Method = "monte carlo",
    outputs: Outputs | Mapping[str, Outputs] | Sequence[Outputs] = "auto",
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    batch_size: int = 128,
    seed: int = 0,
    masks: Literal["example", "shared"] = "example",
    draws: Literal["stratified", "independent"] = "stratified",
    until: float | None = None,
    keep: bool = False,
    unpack: Callable[[Any], Any] | None = None,
    progress: bool = False,
    partial: bool = False,
) -> Any:
    """The prediction of a model as it is, with the uncertainty that its dropout expresses.

    Every site that :func:`thinned.sampling` reaches draws in each pass, and nothing else is in
    training mode. All passes of a batch are run before the next batch is read. The masks of
    thinned's own layers are a function of the seed, the name of the layer, the draw and the row, so
    they do not depend on the batch size; the noise of other sites depends on the batch too. The
    model, its buffers and all generators are left as they were.

    The layers before the first site are computed once. Where the layers after it treat each row by
    itself, several draws run in one call; in other models the results of the torch functions before
    the first draw are recorded in the first pass and returned in the others.

    With stratified draws each unit is kept equally often, up to one, in every block of 17 to 31
    passes. That lowers the error of the mean; the error of the standard deviation remains that of
    independent draws. The spread of dropout is no calibrated interval: calibrate it on held-out
    data.

    Args:
        model: A model in evaluation: ``model.eval()``.
        data: A tensor or an array with the examples on the first axis; a tuple of them for several
            inputs, or a dict for named ones; or a loader of batches that does not shuffle.
        samples: The number of passes, at least 2; with ``until`` the largest number.
        method: "monte carlo" averages the passes. "geometric" takes the normalized geometric mean
            of their probabilities. "exact" enumerates all masks of at most 16 droppable units, each
            shared by all examples. "weight scaling" is one pass without noise, without a spread.
        outputs: What the outputs are along their last axis: "probabilities", "logits", "binary"
            (probabilities of two classes, as of a sigmoid), "values", or "gaussian" (two numbers:
            mean and log variance). "auto" takes probabilities where two or more numbers sum to 1
            everywhere, and values otherwise. For several outputs, one of these for all, or one for
            each: by name for a model that returns a dict, otherwise in order.
        quantiles: The quantiles over the passes; empty for none.
        batch_size: The number of examples in a batch; a loader has its own.
        seed: The seed.
        masks: "example" draws for each example; "shared" draws one mask for all examples in each
            pass, which makes each pass one function of its input.
        draws: "stratified" or "independent"; see above.
        until: Stop the passes of a batch where the error of the mean is at most this in each
            element. It is compared after 32, 64, 128 and so on passes, by an interval that covers
            with a probability of 0.95 for all looks together, as far as the mean of 32 passes is
            normal. None runs all ``samples``.
        keep: Whether to return the outputs of all passes.
        unpack: A function of a batch of the loader that returns the inputs: a tensor, a tuple, or a
            dict of named ones. By default all parts of a tuple but the last, the target.
        progress: Whether to print how many examples are predicted, to the standard error.
        partial: Whether to go on where a site cannot be reached, and leave it as it is.

    Returns:
        A :class:`thinned.Prediction`. For several outputs one for each, in the structure of the
        outputs of the model. After a ``KeyboardInterrupt``, of what was finished, with a warning.

    Raises:
        InputError: Where the model is in training mode, has no site, all its rates are 0, or it
            changes its own buffers; where data are empty, shuffled or NaN, outputs are NaN, or an
            argument breaks a rule.

    Example:
        >>> import torch
        >>> import thinned.nn as tnn
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), tnn.Dropout(0.5)).eval()
        >>> found = predict(model, torch.ones(8, 4), samples=32, outputs="logits")
        >>> found.mean.shape, found.entropy.shape, found.quantiles.shape
        ((8, 3), (8,), (3, 8, 3))

    Reference:
        Gal and Ghahramani 2016, "Dropout as a Bayesian approximation", section 4; Baldi and
        Sadowski 2013, "Understanding dropout", for the geometric mean.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model has to be a torch.nn.Module, but got {type(model).__name__}; for Keras use "
            "thinned.keras.predict"
        )
    inner = unwrap(model)
    choice(method, "method", METHODS)
    choice(masks, "masks", ("example", "shared"))
    choice(draws, "draws", ("stratified", "independent"))
    samples = whole(samples, "samples", 2)
    whole(batch_size, "batch_size", 1)
    checked_seed(seed)
    levels = tuple(probability(level, "quantiles") for level in quantiles)
    for value, what in ((keep, "keep"), (progress, "progress"), (partial, "partial")):
        flag(value, what)
    _check_until(until, method, keep)
    for kind in [outputs] if isinstance(outputs, str) else list(_kinds(outputs)):
        choice(kind, "outputs", KINDS)
    _check_mode(inner)
    batches.check(data)
    run = _Run(inner, method, masks, draws, samples, seed, until, partial)
    collect = _Collect(outputs, levels, keep, method)
    count = interrupted = 0
    with run.context(), keeping_generators(inner, data):
        try:
            for inputs, rows in batches.read(data, batch_size, unpack, inner):
                if rows:
                    interrupted = run.batch(inputs, rows, count, collect)
                    count += rows
                if progress:
                    print(f"\r{count} examples predicted", end="", file=sys.stderr, flush=True)
                if interrupted:
                    break
        except KeyboardInterrupt:
            if not collect.collectors:
                raise
            interrupted = 1
        finally:
            if progress:
                print(file=sys.stderr)
    if not count:
        raise InputError("data has no examples: the loader yields no batch; pass at least one")
    if interrupted:
        warnings.warn(
            f"interrupted: the prediction holds the first {collect.rows} examples, and the last "
            "batch fewer passes where it was not finished",
            RuntimeWarning,
            stacklevel=2,
        )
    return collect.result()


def _kinds(outputs: Any) -> list[Any]:
    if isinstance(outputs, Mapping):
        return list(outputs.values())
    if isinstance(outputs, (list, tuple)):
        return list(outputs)
    raise InputError(
        f"outputs has to be one of {', '.join(KINDS)}, or a list or dict of them, but got "
        f"{outputs!r}"
    )


def _check_until(until: float | None, method: str, keep: bool) -> None:
    if until is None:
        return
    if real(until, "until") <= 0:
        raise InputError(f"until has to be above 0, but got {until}; it is the error of the mean")
    if method != "monte carlo":
        raise InputError(f'until needs method="monte carlo", but got {method!r}; leave until out')
    if keep:
        raise InputError(
            "keep=True needs the same number of passes for all batches, but got until as well; "
            "leave one of them out"
        )


def _check_mode(model: nn.Module) -> None:
    training = [
        name or "the model"
        for name, module in model.named_modules()
        if module.training
        and not isinstance(module, (DropoutModule, _DropoutNd))
        and "drop" not in type(module).__name__.lower()
    ]
    if training:
        raise InputError(
            f"the model is in training mode ({', '.join(training[:3])}), so batch normalization "
            "would be updated; call model.eval() first: dropout draws all the same"
        )


class _Collect:
    """One collector for each output of the model."""

    def __init__(self, outputs: Any, levels: tuple[float, ...], keep: bool, method: str) -> None:
        self.outputs, self.levels, self.keep = outputs, levels, keep
        self.geometric = method == "geometric"
        self.collectors: list[Collector] = []
        self.structure: Any = None
        self.rows = 0

    def start(self, structure: Any, number: int) -> None:
        """Take the structure of the output from the first pass."""
        if self.collectors:
            if len(self.collectors) != number:
                raise InputError(
                    f"the model returned {len(self.collectors)} tensors for the first batch and "
                    f"{number} for another; return the same outputs for every batch"
                )
            return
        if not number:
            raise InputError(
                f"the model returns no floating-point tensor, but {type(structure).__name__}; wrap "
                "it in a module that returns its outputs as tensors"
            )
        one = isinstance(self.outputs, str)
        kinds: list[Any] = [self.outputs] * number if one else self._named(structure)
        if len(kinds) != number:
            raise InputError(
                f"outputs has to name each of the {number} outputs of the model, but got "
                f"{self.outputs!r}; write one for each, or one string for all"
            )
        self.structure = structure
        self.collectors = [Collector(k, self.levels, self.keep, self.geometric) for k in kinds]

    def _named(self, structure: Any) -> list[Any]:
        if not isinstance(self.outputs, Mapping):
            return _kinds(self.outputs)
        if not isinstance(structure, Mapping):
            raise InputError(
                "outputs is a dict, but the model returns no dict; write a list in the order of "
                "its outputs"
            )
        kinds: list[Any] = []
        for name, value in structure.items():
            leaves = flatten(value)
            if leaves and name not in self.outputs:
                raise InputError(
                    f"outputs does not name the output {name!r}; write one for each, or one string "
                    "for all"
                )
            kinds += [self.outputs.get(name)] * len(leaves)
        return kinds

    def result(self) -> Any:
        """The predictions in the structure of the output."""
        return rebuild(self.structure, [c.result() for c in self.collectors])


class _Run:
    """The passes of every batch, as the arguments of :func:`predict` say."""

    def __init__(
        self,
        model: nn.Module,
        method: str,
        masks: str,
        draws: str,
        samples: int,
        seed: int,
        until: float | None,
        partial: bool,
    ) -> None:
        self.model, self.method, self.masks = model, method, masks
        self.samples, self.until, self.partial = samples, until, partial
        self.number = 0
        self.weights: NDArray[np.float64] | None = None
        self.sites = foreign_sites(model)
        self.draws = Draws(seed)
        if method == "exact":
            self.draws = ExactDraws(seed)
        elif draws == "stratified":
            self.draws = StratifiedDraws(seed, samples if until is None else None)
        self._check_masks(self.sites)
        self.seed = seed
        self.passes: Passes

    def _check_masks(self, sites: ForeignSites) -> None:
        needs = 'masks="shared"' if self.masks == "shared" else 'method="exact"'
        if (
            (self.masks == "shared" or self.method == "exact")
            and sites.drawing
            and (not self.partial)
        ):
            raise InputError(
                f"{needs} reaches thinned's own layers only, but this model also draws in "
                f"{', '.join(list(sites.drawing)[:3])}; first make torch's layers thinned's by "
                "thinned.replace(model), and functional and attention dropout by "
                "thinned.expose(model, *inputs)"
            )

    @contextmanager
    def context(self) -> Any:
        """Within, the model can be run by :meth:`batch`."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            force_eager(stack)
            if self.method == "weight scaling":
                stack.enter_context(modes.averaging(self.model, partial=self.partial))
            else:
                stack.enter_context(modes.sampling(self.model, partial=self.partial))
            self.passes = Passes(self.model, self.sites, self.draws, self.seed)
            stack.enter_context(entered(drawing_by(self.model, self.passes.turn)))
            stack.callback(self.passes.restore)
            yield

    def batch(self, inputs: batches.Inputs, rows: int, first: int, collect: _Collect) -> int:
        """Run and collect one batch; return 1 where it was interrupted."""
        passes = self.passes
        device = tensors_in(inputs)[0].device
        ids = torch.arange(first, first + rows, device=device)
        if self.masks == "shared" or self.method == "exact":
            ids = torch.zeros_like(ids)
        passes.begin_batch(inputs, ids, self.number)
        self.number += 1
        parts: list[list[NDArray[Any]]] = []
        interrupted = 0
        try:
            if self.method == "weight scaling":
                parts.append(passes.run_once())
            else:
                self._sample(parts, collect)
        except KeyboardInterrupt:
            if sum(len(part[0]) for part in parts) < 2 or self.method == "exact":
                raise
            interrupted = 1
        finally:
            passes.end_batch()
        collect.start(passes.structure, len(parts[0]))
        for i, collector in enumerate(collect.collectors):
            stacked = np.concatenate([part[i] for part in parts])
            collector.add(stacked, self.weights, single=self.method == "weight scaling")
        collect.rows += rows
        return interrupted

    def _sample(self, parts: list[list[NDArray[Any]]], collect: _Collect) -> None:
        passes, total = self.passes, self.samples
        passes.prepare()
        if isinstance(self.draws, ExactDraws):
            if self.draws.counting:
                passes.run(range(1))
                self.draws.check()
                self.weights = self.draws.weights()
                passes.recording = None
            total = self.draws.count
        done, look = 0, FIRST_LOOK
        while done < total:
            size = passes.chunk(done, min(total, look) if self.until is not None else total)
            parts.append(passes.run(range(done, done + size)))
            done += size
            if self.until is not None and done == look:
                look *= 2
                collect.start(passes.structure, len(parts[0]))
                if self._is_precise(parts, collect):
                    return

    def _is_precise(self, parts: list[list[NDArray[Any]]], collect: _Collect) -> bool:
        assert self.until is not None
        for i, collector in enumerate(collect.collectors):
            values = collector.values(np.concatenate([part[i] for part in parts]))
            heads = values[..., 0] if collector.kind == "gaussian" else values
            if error_bound(heads) > self.until:
                return False
        return True
