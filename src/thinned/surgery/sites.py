"""Where a model draws: its own dropout layers, functional dropout, attention, recurrent networks,
raw masks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import InputError
from ..nn.module import DropoutModule
from . import page
from .attribute_rates import LAYERS, awake, held
from .model_access import not_scripted, plain
from .observe import Observation, observing, preserve_state
from .rates import RATES
from .reading import drawings


@dataclass(frozen=True)
class Site:
    """A place where a model draws.

    ``name``: the qualified name of the module in whose code it stands, ``module`` its class.
    ``function``: what draws. ``where``: file and line of the call, in code that is neither torch's
    nor ours. ``kind``: "dropout", "attention", "recurrent", "mask" (a raw Bernoulli draw), "noise"
    (uniform, normal and other draws), "python" (``random``), or "unseen": the generator moved, and
    nothing that can be read says why. ``rate``: the probability of dropping that it is called with,
    ``measured`` the share that fell in this run; None where there is none. ``in_train``,
    ``in_eval``: does it draw there? ``shape``: of what is drawn for. ``calls``: in one pass.
    ``parameters_behind``, ``flops_behind``: the share of the model's parameters and of its
    multiplications that come after it. Without inputs what is measured is None, and ``in_train`` is
    what the layer would do.
    """

    name: str
    module: str
    kind: str
    function: str
    where: str
    rate: float | None
    measured: float | None
    in_train: bool
    in_eval: bool
    shape: tuple[int, ...] | None
    calls: int
    parameters_behind: float | None
    flops_behind: float | None


class Sites(tuple[Site, ...]):
    """All sites of a model, in the order of their first draw. Printed, it is a table, with paths
    from here or the end of them; :meth:`save` makes a page of it."""

    __slots__ = ()

    def to_html(self, title: str = "Dropout in this model") -> str:
        """A page, whole in one file and without scripts: the model as a tree, its rates against
        what fell, modes, places.
        """
        return page.html(self, title)

    def save(self, path: str | Path, title: str = "Dropout in this model") -> None:
        """Write :meth:`to_html` into a file."""
        Path(path).write_text(self.to_html(title), encoding="utf-8")

    def plot(self, path: str | Path, title: str = "Dropout in this model") -> None:
        """Write a picture, one bar a site, into a file that ends in ``.svg``."""
        if Path(path).suffix.lower() != ".svg":
            raise InputError(f"the picture is SVG, so its file ends in .svg, but got {str(path)!r}")
        Path(path).write_text(page.svg(self, title), encoding="utf-8")

    def __str__(self) -> str:
        if not self:
            return "no randomness found"
        head = (
            "name",
            "kind",
            "draws by",
            "rate",
            "measured",
            "train",
            "eval",
            "shape",
            "behind",
            "where",
        )
        rows = [head, *(_shown(site) for site in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def _short(where: str) -> str:
    """A place as it is opened from here; elsewhere, the file in its folder."""
    path, _, line = where.rpartition(":")
    if not path:
        return where
    with contextlib.suppress(ValueError):
        return f"{Path(path).relative_to(Path.cwd())}:{line}"
    return f"{Path(*Path(path).parts[-2:])}:{line}"


def _shown(site: Site) -> tuple[str, ...]:
    def share(x: float | None) -> str:
        return "" if x is None else f"{x:.3g}"

    drawn = {True: "draws", False: "quiet"}
    shape = "" if site.shape is None else "x".join(map(str, site.shape))
    behind = "" if site.flops_behind is None else f"{site.flops_behind:.0%}"
    name = site.name or "(the model)"
    return (
        name, site.kind, site.function, share(site.rate), share(site.measured), drawn[site.in_train], drawn[site.in_eval],
        shape, behind, _short(site.where),
    )  # fmt: skip


def find(model: nn.Module, *inputs: Any, **named: Any) -> Sites:
    """Every place where ``model`` draws. With its inputs it is run, once in training and once in
    evaluation, and observed.

    Seen are calls: layers of torch, of ours and of anybody, ``F.dropout`` and its like,
    ``scaled_dot_product_attention``, ``nn.MultiheadAttention``, LSTM and GRU, raw draws of torch,
    and ``random`` of Python; by what they do, not by their names. Without inputs layers are read
    instead, and the source of the other modules' ``forward``, with the methods and functions that
    it calls; rates are those that constants and attributes tell, and a site draws in evaluation
    where the source surely says so. A model that leaves out layers by a rate of its own
    (``layerdrop``) is run once more with all of them; a site that only this pass reached has 0
    ``calls``.

    The model is left as it was: modes, buffers (of batch normalisation too) and the generators of
    torch, Python and NumPy; no gradients are made. A compiled model is read through. Raises
    :class:`thinned.InputError` for a scripted one, which cannot be observed, and passes on what the
    model raises.
    """
    model = plain(model)
    not_scripted(model)
    if not inputs and not named:
        return Sites(_read(model))
    with preserve_state(model, (inputs, named)), observing(model) as run:

        def seen(training: bool) -> Observation:
            model.train(training)
            model(*inputs, **named)
            return run.taken()

        train = seen(True)
        whole = train
        if any(held(model, LAYERS)):
            with awake(model):
                whole = seen(True)
        return Sites(_merged(train, whole, seen(False)))


def _merged(train: Observation, whole: Observation, evaluation: Observation) -> Iterator[Site]:
    """The sites of all passes; what several saw is one."""
    for place in dict.fromkeys(p for run in (whole, train, evaluation) for p in run.seen):
        run = next(run for run in (whole, train, evaluation) if place in run.seen)
        placed, one = run.seen[place], train.seen.get(place, run.seen[place])
        yield Site(
            one.name, one.module, one.kind, one.function, one.where, one.rate, one.fell / one.of if one.of else None,
            place in train.seen or place in whole.seen, place in evaluation.seen, one.shape,
            one.calls if place in train.seen or run is evaluation else 0,
            1.0 - placed.parameters_before / run.parameters if run.parameters else None,
            1.0 - placed.flops_before / run.flops if run.flops else None,
        )  # fmt: skip


def _read(model: nn.Module) -> Iterator[Site]:
    """The layers that hold a rate (hosts, dropout by class or name, attention, recurrent networks),
    and draws in the source.
    """
    for name, module in model.named_modules():
        looks = (
            isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd))
            or "drop" in type(module).__name__.lower()
        )
        kind = "dropout" if looks else "recurrent" if isinstance(module, nn.RNNBase) else ""
        kind = "attention" if isinstance(module, nn.MultiheadAttention) else kind
        if kind != "dropout" and not isinstance(module, DropoutModule):
            for d in drawings(module):
                yield _unmeasured(
                    name, module, d.kind, d.function, d.where, d.rate, d.in_train, d.in_eval
                )
        if not kind:
            continue
        values = (getattr(module, a, None) for a in RATES)
        rate = next(
            (float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)),
            None,
        )
        if kind != "dropout" and not rate:
            continue
        draws = rate != 0 and (kind != "recurrent" or module.num_layers > 1)
        yield _unmeasured(name, module, kind, type(module).__name__, "", rate, draws, False)


def _unmeasured(
    name: str,
    module: nn.Module,
    kind: str,
    function: str,
    where: str,
    rate: float | None,
    in_train: bool,
    in_eval: bool,
) -> Site:
    return Site(
        name,
        type(module).__name__,
        kind,
        function,
        where,
        rate,
        None,
        in_train,
        in_eval,
        None,
        0,
        None,
        None,
    )
