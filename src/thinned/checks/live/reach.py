"""Rules on what reaches the sites of a model: keys, sampling, schedules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...nn.module import dropout_modules
from ...surgery.foreign import foreign_sites
from ...surgery.rates import unmoved_schedules
from ..finding import Finding
from .check_run import CheckRun
from .evaluation import in_file


def not_reached(run: CheckRun) -> Iterator[Finding]:
    """L36: the key of a keyed model, or :func:`thinned.sampling` for a model for Monte Carlo
    prediction, does not reach a site.

    Signal: of the sites that :func:`thinned.key` and :func:`thinned.sampling` do not reach, as the
    source shows them, those of modules that drew in the training passes; for sampling only if they
    do not draw in evaluation anyway. No statistics.
    """
    modules = {d.name for record in run.training for d in record.draws}
    sites = foreign_sites(run.model)
    layers = list(dropout_modules(run.model))
    if any(layer.model_key is not None for _, layer in layers):
        for site in _of_modules(sites.unkeyed, sites.names.values(), modules):
            yield Finding("L36", f"the key does not reach it: {site['what']}", **_place(site))
        for name, layer in layers:
            if layer.model_key is None and name in modules:
                text = f"{type(layer).__name__} was added after thinned.key and has no key"
                remedy = "call remove() of the key, and thinned.key again"
                yield Finding("L36", text, site=name, remedy=remedy)
    if "monte carlo" in run.purposes:
        quiet = modules - {d.name for record in run.evaluations for d in record.draws}
        for site in _of_modules(sites.not_sampled, sites.names.values(), quiet):
            yield Finding("L36", f"sampling does not reach it: {site['what']}", **_place(site))


def _of_modules(
    found: Iterable[str], names: Iterable[str], wanted: set[str]
) -> Iterator[dict[str, Any]]:
    """The texts "name (Class): function at file:line" that are of the modules ``wanted``, read."""
    names = list(names)
    for text in found:
        head, _, rest = text.partition(": ")
        label = head.rpartition(" (")[0]
        name = "" if label == "the model" and "the model" not in names else label
        if name in wanted:
            what, _, where = rest.rpartition(" at ")
            kind = head.rpartition(" (")[2].rstrip(")")
            yield {"site": name, "what": what or rest or f"a layer of {kind}", **in_file(where)}


def _place(site: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in site.items() if name != "what"}


def schedule_not_advanced(run: CheckRun) -> Iterator[Finding]:
    """L37: the model trains already, and a schedule was never advanced.

    Signal: parameters have gradients, so a step was made, and a layer with a schedule was moved by
    neither :func:`thinned.step` nor a key. The watch reports it without gradients. No statistics.
    """
    if run.has_trained:
        for name, layer in unmoved_schedules(run.model):
            rate = float(getattr(layer, "p", 0.0))
            text = f"the rate {rate:g} has a schedule that was never advanced"
            yield Finding("L37", text, site=name, evidence=(("rate", rate),))
