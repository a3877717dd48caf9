"""Finding every site where a model draws: dropout layers, functional dropout, attention, recurrent
networks, hand-drawn masks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import InputError
from ..nn.module import DropoutModule
from . import page
from .attribute_rates import SKIPPED_LAYER_RATES, edits_to_zero, run_all_layers
from .foreign import foreign_sites
from .model_access import check_not_scripted, unwrap_compiled
from .model_call import ModelCall
from .observe import Observation, observing, preserve_state
from .rates import rate_of
from .reading import source_draws


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place where a model draws at random, as :func:`find` returns it.

    Without inputs nothing is measured: ``measured``, ``shape`` and the shares are None, ``calls``
    is 0, and ``in_train`` and ``in_eval`` are what the layer or the source says.

    Args:
        name: The qualified name of the module that draws in its code; "" for the model itself.
        module: The name of the class of that module.
        kind: "dropout", "attention", "recurrent", "mask" (a Bernoulli draw by hand), "noise"
            (uniform, normal and other draws), "python" (``random``), or "unseen": a generator
            moved, and no call was observed that explains it.
        function: What draws: a function such as "F.dropout", or the class of a layer.
        where: File and line of the call, in code that is neither torch's nor thinned's; "" for a
            layer that was read and not run.
        rate: The probability of dropping of the call, in [0, 1]; None where there is none.
        measured: The fraction of the elements that was dropped in the observed training pass (in
            the evaluation pass for a site that draws only there).
        in_train: Whether the site draws in training.
        in_eval: Whether the site draws in evaluation.
        shape: The shape of the input of the first call.
        calls: The number of calls in one pass.
        parameters_behind: The share of the parameters of the model that come after the site.
        flops_behind: The share of the multiplications of a pass that come after the site.
        keyed: Whether the site is a layer of thinned, which a key (:func:`thinned.key`) reaches.
        sampled: Whether :func:`thinned.sampling` makes the site draw in evaluation.

    Example:
        >>> import torch
        >>> site = find(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1)))[0]
        >>> site.name, site.kind, site.rate, site.in_train, site.in_eval
        ('1', 'dropout', 0.1, True, False)
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
    keyed: bool
    sampled: bool


class Sites(tuple[Site, ...]):
    """All sites of a model, in the order of their first draw; a tuple that prints as a table.

    In the table "after" is the share of the multiplications that come after a site; "key" and
    "sampling" say what reaches it. Files are relative to the current directory, or the last two
    parts of their paths.
    :meth:`save` writes a page, :meth:`plot` a picture.

    Args:
        iterable: The sites; :func:`find` builds the tuple.

    Example:
        >>> import torch
        >>> print(find(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1))))
        name  kind     function  rate  measured  train  eval   key  sampling  shape  after  where
        1     dropout  Dropout   0.1             draws  quiet  no   yes
    """

    __slots__ = ()

    def to_html(self, title: str = "Dropout in this model") -> str:
        """Return an HTML page, whole in one file and without scripts.

        It shows the model as a tree, with the rate, the measured fraction, the modes and the place
        of each site.
        """
        return page.html(self, title)

    def save(self, path: str | Path, title: str = "Dropout in this model") -> None:
        """Write the page of :meth:`to_html` to a file."""
        Path(path).write_text(self.to_html(title), encoding="utf-8")

    def plot(self, path: str | Path, title: str = "Dropout in this model") -> None:
        """Write a picture, one bar per site, to a file with a name that ends in ``.svg``.

        Raises :class:`thinned.InputError` for another file name.
        """
        if Path(path).suffix.lower() != ".svg":
            raise InputError(
                f"the picture is SVG, so path has to be a name that ends in .svg, but got "
                f"{str(path)!r}"
            )
        Path(path).write_text(page.svg(self, title), encoding="utf-8")

    def __str__(self) -> str:
        if not self:
            return "no randomness found"
        head = (
            "name",
            "kind",
            "function",
            "rate",
            "measured",
            "train",
            "eval",
            "key",
            "sampling",
            "shape",
            "after",
            "where",
        )
        rows = [head, *(_table_row(site) for site in self)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def _short(where: str) -> str:
    """Return a file relative to the current directory; elsewhere the last two parts of its path."""
    path, _, line = where.rpartition(":")
    if not path:
        return where
    with contextlib.suppress(ValueError):
        return f"{Path(path).relative_to(Path.cwd())}:{line}"
    return f"{Path(*Path(path).parts[-2:])}:{line}"


def _table_row(site: Site) -> tuple[str, ...]:
    def number(x: float | None) -> str:
        return "" if x is None else f"{x:.3g}"

    state = {True: "draws", False: "quiet"}
    reached = {True: "yes", False: "no"}
    return (
        site.name or "(the model)",
        site.kind,
        site.function,
        number(site.rate),
        number(site.measured),
        state[site.in_train],
        state[site.in_eval],
        reached[site.keyed],
        reached[site.sampled],
        "" if site.shape is None else "x".join(map(str, site.shape)),
        "" if site.flops_behind is None else f"{site.flops_behind:.0%}",
        _short(site.where),
    )


def find(
    model: nn.Module, *inputs: Any, forward: Callable[..., Any] | None = None, **named: Any
) -> Sites:
    """Find every site where ``model`` draws at random.

    With inputs, the model is run once in training and once in evaluation, and observed. Calls are
    recognized by what they do, not by their names: layers of torch, of thinned and of other
    libraries, ``F.dropout`` and related functions, ``scaled_dot_product_attention``,
    ``nn.MultiheadAttention``, LSTM and GRU, the random functions of torch, and Python's ``random``.
    A model that skips layers at a rate of its own (``layerdrop``) is run once more with all of
    them; a site that only this pass reached has 0 ``calls``.

    Without inputs, nothing is run: the layers are read, and the source of each module's ``forward``
    with the methods and functions that it calls. Rates are those of constants and attributes; a
    site counts as drawing in evaluation only where the source is certain.

    Each pass gets copies of the inputs. The model is left as it was: its modes, its buffers (of
    batch normalization too) and the generators of torch, Python and NumPy; no gradients are
    computed. For this, parameters and buffers are copied once, for the length of the call. A
    compiled model is read through its wrapper. Exceptions of the model are passed on.

    Args:
        model: The model to search.
        *inputs: Its inputs by position.
        forward: A function of the model and the inputs that runs it, for models that are not run
            by their call: ``forward=lambda model, batch: model.loss(batch)``. By default a
            LightningModule without ``forward`` is run by its ``training_step``.
        **named: Its inputs by name.

    Returns:
        The sites, in the order of their first draw; in the order of the modules without inputs.

    Raises:
        InputError: Where the model is scripted, has lazy modules that have not run, or cannot be
            run.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1))
        >>> [(site.name, site.rate, site.calls) for site in find(model, torch.ones(4, 2))]
        [('1', 0.1, 1)]
    """
    model = unwrap_compiled(model)
    check_not_scripted(model)
    reach = _Reach(model)
    if not inputs and not named and forward is None:
        return Sites(_read(model, reach))
    call = ModelCall(model, inputs, named, forward)
    with preserve_state(model, (inputs, named)), observing(model) as observation:

        def run(training: bool) -> Observation:
            model.train(training)
            call(model)
            return observation.take()

        train = run(True)
        complete = train
        if any(edits_to_zero(model, SKIPPED_LAYER_RATES)):
            with run_all_layers(model):
                complete = run(True)
        return Sites(_merged(train, complete, run(False), reach))


class _Reach:
    """Says of the sites of a model what reaches them."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.unsampled = foreign_sites(model).unsampled

    def __call__(self, name: str, in_eval: bool) -> dict[str, bool]:
        module = self.modules[name]
        keyed = isinstance(module, DropoutModule)
        return {"keyed": keyed, "sampled": keyed or in_eval or module not in self.unsampled}


def _merged(
    train: Observation, complete: Observation, evaluation: Observation, reach: _Reach
) -> Iterator[Site]:
    """Yield the sites of all passes, each once.

    ``complete`` is the training pass in which no layer was skipped. It sets the order and the
    shares, which would otherwise vary with the skipped layers; the numbers are those of ``train``.
    """
    passes = (complete, train, evaluation)
    for place in dict.fromkeys(p for observation in passes for p in observation.sites):
        observation = next(o for o in passes if place in o.sites)
        record = observation.sites[place]
        site = train.sites.get(place, record)
        counted = place in train.sites or observation is evaluation
        parameters, flops = observation.parameters, observation.flops
        yield Site(
            name=site.name,
            module=site.module,
            kind=site.kind,
            function=site.function,
            where=site.where,
            rate=site.rate,
            measured=site.dropped / site.elements if site.elements else None,
            in_train=place in train.sites or place in complete.sites,
            in_eval=place in evaluation.sites,
            shape=site.shape,
            calls=site.calls if counted else 0,
            parameters_behind=1.0 - record.parameters_before / parameters if parameters else None,
            flops_behind=1.0 - record.flops_before / flops if flops else None,
            **reach(site.name, place in evaluation.sites),
        )


def _read(model: nn.Module, reach: _Reach) -> Iterator[Site]:
    """Yield the layers that have a rate, and the draws in the source of the other modules.

    The layers are dropout modules, layers with "drop" in the name of their class, attention and
    recurrent networks.
    """
    for name, module in model.named_modules():
        is_dropout = (
            isinstance(module, (DropoutModule, nn.modules.dropout._DropoutNd))
            or "drop" in type(module).__name__.lower()
        )
        kind = "dropout" if is_dropout else "recurrent" if isinstance(module, nn.RNNBase) else ""
        kind = "attention" if isinstance(module, nn.MultiheadAttention) else kind
        if kind != "dropout" and not isinstance(module, DropoutModule):
            for d in source_draws(module):
                yield _unmeasured(
                    name,
                    module,
                    d.kind,
                    d.function,
                    d.where,
                    d.rate,
                    d.in_train,
                    d.in_eval,
                    reach,
                )
        if not kind:
            continue
        attribute = rate_of(module)
        rate = None if attribute is None else float(getattr(module, attribute))
        if kind != "dropout" and not rate:
            continue
        in_train = rate != 0 and (kind != "recurrent" or module.num_layers > 1)
        yield _unmeasured(
            name, module, kind, type(module).__name__, "", rate, in_train, False, reach
        )


def _unmeasured(
    name: str,
    module: nn.Module,
    kind: str,
    function: str,
    where: str,
    rate: float | None,
    in_train: bool,
    in_eval: bool,
    reach: _Reach,
) -> Site:
    return Site(
        name=name,
        module=type(module).__name__,
        kind=kind,
        function=function,
        where=where,
        rate=rate,
        measured=None,
        in_train=in_train,
        in_eval=in_eval,
        shape=None,
        calls=0,
        parameters_behind=None,
        flops_behind=None,
        **reach(name, in_eval),
    )
